package s3_test

import (
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/s3"
)

func TestParse(t *testing.T) {
	yes, no := true, false
	for name, want := range map[string]s3.Options{
		"s3://b":                 {Bucket: "b"},
		"s3://b/":                {Bucket: "b"},
		"s3://b/p":               {Bucket: "b", Prefix: "p"},
		"s3://b//p/q//":          {Bucket: "b", Prefix: "p/q"},
		"s3://b/with%20it":       {Bucket: "b", Prefix: "with it"},
		"s3://my.Old_Bucket-1/p": {Bucket: "my.Old_Bucket-1", Prefix: "p"},

		"s3://b?region=eu-west-1&profile=ops":                      {Bucket: "b", Region: "eu-west-1", Profile: "ops"},
		"s3://b/p?endpoint=http://127.0.0.1:9000":                  {Bucket: "b", Prefix: "p", Endpoint: "http://127.0.0.1:9000"},
		"s3://b?endpoint=minio.example:9000":                       {Bucket: "b", Endpoint: "https://minio.example:9000"},
		"s3://b?endpoint=https%3A%2F%2Fminio.example&path-style=0": {Bucket: "b", Endpoint: "https://minio.example", PathStyle: &no},
		"s3://b?path-style=true&anonymous=true":                    {Bucket: "b", PathStyle: &yes, Anonymous: true},
		"s3://b?kms-key=alias/images":                              {Bucket: "b", Encryption: types.ServerSideEncryptionAwsKms, KMSKey: "alias/images"},
		"s3://b?sse=AES256&storage-class=standard_ia":              {Bucket: "b", Encryption: types.ServerSideEncryptionAes256, StorageClass: types.StorageClassStandardIa},
		"s3://b?acl=bucket-owner-full-control&part-size=16MiB":     {Bucket: "b", ACL: types.ObjectCannedACLBucketOwnerFullControl, PartSize: 16 << 20},
		"s3://b?part-size=5GiB":                                    {Bucket: "b", PartSize: 5 << 30},
		"s3://b?part-size=6MB":                                     {Bucket: "b", PartSize: 6e6},
		"s3://b?part-size=5242880":                                 {Bucket: "b", PartSize: 5 << 20},
	} {
		if got, err := s3.Parse(name); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
	}
}

// TestParseRefuses has a password wherever a person may put one.
func TestParseRefuses(t *testing.T) {
	for name, want := range map[string]string{
		"":                                   "not the URL of a bucket",
		"s3:b/p":                             "not the URL of a bucket",
		"S3//b":                              "not the URL of a bucket",
		"http://b/hunter2":                   "not the URL of a bucket",
		"s3://b/p#hunter2":                   "not the URL of a bucket",
		"s3://key:hun/ter2@b":                "not the URL of a bucket",
		"s3://":                              "names no bucket",
		"s3:///p":                            "names no bucket",
		"s3://key:hunter2@b":                 "no user or password",
		"s3://hunter2@b":                     "no user or password",
		"s3://AKIDEXAMPLE:4711":              "no bucket has a name like",
		"s3://b%20c":                         "not the URL of a bucket",
		"s3://-b":                            "no bucket has a name like",
		"s3://[::1]/hunter2":                 "no bucket has a name like",
		"s3://b/.hidden":                     "the prefix is no key",
		"s3://b/a//b":                        "the prefix is no key",
		"s3://b/%C3%A9":                      "the prefix is no key",
		"s3://b?colour=hunter2":              `no option "colour"`,
		"s3://b?secret-key=hunter2":          `no option "secret-key"`,
		"s3://b?Region=x":                    `no option "Region"`,
		"s3://b?region=":                     `"region" needs one value`,
		"s3://b?region":                      `"region" needs one value`,
		"s3://b?region=hunter2&region=b":     `"region" needs one value`,
		"s3://b?region=hunter2%zz":           "makes no sense",
		"s3://b?region=hunter2;x=y":          "makes no sense",
		"s3://b?endpoint=http://k:hunter2@h": "takes no user or password",
		"s3://b?endpoint=k:hunter2@h":        "takes no user or password",
		"s3://b?endpoint=ftp://h/hunter2":    "no http or https URL",
		"s3://b?endpoint=http://h?secret=hunter2":  "no http or https URL",
		"s3://b?endpoint=http://:9000":             "no http or https URL",
		"s3://b?endpoint=http://h%2520/hunter2":    "the endpoint is no URL",
		"s3://b?path-style=maybe":                  "neither true nor false",
		"s3://b?anonymous=2":                       "neither true nor false",
		"s3://b?sse=rot13":                         "none of AES256",
		"s3://b?storage-class=shelf":               "none of STANDARD",
		"s3://b?acl=everybody":                     "none of private",
		"s3://b?part-size=big":                     "no size such as",
		"s3://b?part-size=-5MiB":                   "no size such as",
		"s3://b?part-size=16 MiB":                  "no size such as",
		"s3://b?part-size=4MiB":                    "parts of 5MiB to 5GiB",
		"s3://b?part-size=6GiB":                    "parts of 5MiB to 5GiB",
		"s3://b?part-size=5000000000GiB":           "parts of 5MiB to 5GiB",
		"s3://b?part-size=99999999999999999999MiB": "no size such as",
	} {
		o, err := s3.Parse(name)
		if err == nil || !strings.Contains(err.Error(), want) || fault.KindOf(err) != fault.Usage {
			t.Errorf("%s: %+v, %v; want %q", name, o, err, want)
			continue
		}
		if text := err.Error() + fault.AdviceOf(err); strings.Contains(text, "hunter2") || strings.Contains(text, "ter2") || strings.Contains(text, "4711") {
			t.Errorf("%s: a password is in %s", name, text)
		}
	}
}

// FuzzParse makes sure that what is accepted means what its parts say: written
// anew from them it is accepted again, as the same.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"s3://b/p?region=r&endpoint=http://h:1&profile=x&path-style=true&anonymous=false",
		"s3://b?sse=aws:kms&kms-key=k&storage-class=GLACIER&acl=private&part-size=16MiB",
		"s3://u:p@b", "s3://b/%2f..%2f", "s3://b?part-size=9223372036854775807GB", "s3://b:80", "s3://b?region=a;b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		o, err := s3.Parse(name)
		if err != nil {
			if fault.KindOf(err) != fault.Usage {
				t.Errorf("%q: %v is no usage fault", name, err)
			}
			return
		}
		if o.Bucket == "" || strings.ContainsAny(o.Bucket, "/:@?# ") || o.Prefix != "" && storage.ValidKey(o.Prefix) != nil {
			t.Errorf("%q: %+v", name, o)
		}
		if o.PartSize != 0 && (o.PartSize < 5<<20 || o.PartSize > 5<<30) {
			t.Errorf("%q: parts of %d bytes", name, o.PartSize)
		}
		again, err := s3.Parse(written(o))
		if err != nil || !reflect.DeepEqual(again, o) {
			t.Errorf("%q: %+v\nwritten anew: %+v, %v", name, o, again, err)
		}
	})
}

// written is the URL of what was read.
func written(o s3.Options) string {
	q := url.Values{}
	set := func(key, value string) {
		if value != "" && value != "false" && value != "0" {
			q.Set(key, value)
		}
	}
	set("region", o.Region)
	set("endpoint", o.Endpoint)
	set("profile", o.Profile)
	set("anonymous", fmt.Sprint(o.Anonymous))
	set("sse", string(o.Encryption))
	set("kms-key", o.KMSKey)
	set("storage-class", string(o.StorageClass))
	set("acl", string(o.ACL))
	set("part-size", fmt.Sprint(o.PartSize))
	if o.PathStyle != nil {
		q.Set("path-style", fmt.Sprint(*o.PathStyle))
	}
	return (&url.URL{Scheme: "s3", Host: o.Bucket, Path: "/" + o.Prefix, RawQuery: q.Encode()}).String()
}
