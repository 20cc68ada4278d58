package s3

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
	"github.com/dogestry/dogestry/internal/storage"
)

// Options say which bucket is meant and how to use it. Parse makes them of a
// URL; what they leave empty comes from where the AWS command line takes it:
// the environment, ~/.aws/config and ~/.aws/credentials, instance roles.
type Options struct {
	Bucket string
	Prefix string // of all keys, without slashes at its ends; may be empty

	Region    string // empty: as configured, else as the bucket says
	Endpoint  string // URL of an S3-compatible server; empty: as configured, else AWS
	Profile   string // of ~/.aws; empty: as configured
	PathStyle *bool  // bucket in the path, not in the host name; nil: on custom endpoints
	Anonymous bool   // sign nothing: public buckets

	Encryption   types.ServerSideEncryption // of new objects
	KMSKey       string                     // for aws:kms
	StorageClass types.StorageClass         // of new objects
	ACL          types.ObjectCannedACL      // of new objects
	PartSize     int64                      // bytes of a part; 0: 8 MiB, more where a layer needs it

	// Not from the URL:

	UploadLimit   int64 // bytes a second, of all requests together; 0: none
	DownloadLimit int64

	Seal   *sealed.Seal // of what may be dialled and run; the bucket's host is added to it. Nil seals nothing
	Log    *slog.Logger
	Notify func(line string) // is told of retries, from any goroutine; may be nil

	Attempts   int           // of one request; 0: 10
	MaxBackoff time.Duration // between two; 0: 20 s
	Stall      time.Duration // without a byte; 0: 30 s
}

// Sizes of parts, in bytes (S3 User Guide, "Amazon S3 multipart upload limits").
const (
	defaultPart = 8 << 20
	minPart     = 5 << 20
	maxPart     = 5 << 30
	maxParts    = 10_000
)

const example = "s3://bucket/prefix"

// bucketName is what old and new buckets are called, here and on other servers.
var bucketName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$`)

// Parse reads a URL of the form
//
//	s3://bucket/prefix?region=…&endpoint=…&profile=…&path-style=true&anonymous=true
//	                  &sse=aws:kms&kms-key=…&storage-class=…&acl=…&part-size=16MiB
//
// Its errors are usage faults and never show a password.
func Parse(name string) (Options, error) {
	u, err := url.Parse(name)
	if err != nil || u.Scheme != "s3" || u.Opaque != "" || u.Fragment != "" {
		return Options{}, fault.New(fault.Usage, "this is not the URL of a bucket").Advise("Write it as %s.", example)
	}
	if u.User != nil {
		return Options{}, fault.New(fault.Usage, "the URL of a bucket takes no user or password").
			Advise("Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or add ?profile=NAME.")
	}
	o := Options{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	switch {
	case o.Bucket == "":
		return Options{}, fault.New(fault.Usage, "the URL names no bucket").Advise("Write it as %s.", example)
	case !bucketName.MatchString(o.Bucket): // it may be an access key and what belongs to it
		return Options{}, fault.New(fault.Usage, "no bucket has a name like the one in the URL").
			Advise("Names have letters, digits, dots and hyphens. Write the URL as %s; for another server add ?endpoint=URL.", example)
	}
	if o.Prefix != "" {
		if err := storage.ValidKey(o.Prefix); err != nil {
			return Options{}, fault.New(fault.Usage, "%s: the prefix is no key: %s", o.Bucket, err)
		}
	}
	// From here on errors name the bucket and not the whole URL: what is in a
	// query that makes no sense may be a secret.
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Options{}, fault.New(fault.Usage, "%s: what follows the ? in its URL makes no sense", o.url())
	}
	for _, key := range slices.Sorted(maps.Keys(query)) {
		values := query[key]
		if len(values) != 1 || values[0] == "" {
			return Options{}, fault.New(fault.Usage, "%s: %q needs one value", o.url(), key)
		}
		if err := o.set(key, values[0]); err != nil {
			return Options{}, fault.New(fault.Usage, "%s: %s", o.url(), err).Advise("See docs/s3.md for what can be set.")
		}
	}
	if o.KMSKey != "" && o.Encryption == "" {
		o.Encryption = types.ServerSideEncryptionAwsKms
	}
	return o, nil
}

func (o *Options) set(key, value string) (err error) {
	switch key {
	case "region":
		o.Region = value
	case "endpoint":
		o.Endpoint, err = endpoint(value)
	case "profile":
		o.Profile = value
	case "path-style":
		var on bool
		on, err = flag(key, value)
		o.PathStyle = &on
	case "anonymous":
		o.Anonymous, err = flag(key, value)
	case "sse":
		o.Encryption, err = one(key, value, types.ServerSideEncryption("").Values())
	case "kms-key":
		o.KMSKey = value
	case "storage-class":
		o.StorageClass, err = one(key, strings.ToUpper(value), types.StorageClass("").Values())
	case "acl":
		o.ACL, err = one(key, value, types.ObjectCannedACL("").Values())
	case "part-size":
		o.PartSize, err = partSize(value)
	default:
		err = fmt.Errorf("there is no option %q", key)
	}
	return err
}

func flag(key, value string) (bool, error) {
	on, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("%s=%s is neither true nor false", key, value)
	}
	return on, nil
}

// one returns value if it is one of those that the service knows.
func one[T ~string](key, value string, known []T) (T, error) {
	if slices.Contains(known, T(value)) {
		return T(value), nil
	}
	names := make([]string, len(known))
	for i, k := range known {
		names[i] = string(k)
	}
	return "", fmt.Errorf("%s=%s is none of %s", key, value, strings.Join(names, ", "))
}

// endpoint returns the URL of a server; without a scheme it is https.
func endpoint(value string) (string, error) {
	if !strings.Contains(value, "://") {
		value = "https://" + value
	}
	u, err := url.Parse(value)
	switch {
	case err != nil:
		return "", errors.New("the endpoint is no URL")
	case u.User != nil:
		return "", errors.New("the endpoint takes no user or password")
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("the endpoint is no http or https URL such as https://minio.example:9000")
	}
	return value, nil
}

func partSize(value string) (int64, error) {
	digits, unit := value, int64(1)
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"MiB", 1 << 20}, {"GiB", 1 << 30}, {"MB", 1e6}, {"GB", 1e9}} {
		if d, ok := strings.CutSuffix(value, u.name); ok {
			digits, unit = d, u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > maxPart {
		return 0, fmt.Errorf("part-size=%s is no size such as 16MiB", value)
	}
	if n *= unit; n < minPart || n > maxPart {
		return 0, fmt.Errorf("part-size=%s: S3 takes parts of 5MiB to 5GiB", value)
	}
	return n, nil
}

// url is the bucket as a user would name it, for messages.
func (o Options) url() string {
	if o.Prefix == "" {
		return "s3://" + o.Bucket
	}
	return "s3://" + o.Bucket + "/" + o.Prefix
}
