package cli

import (
	"errors"
	"testing"
)

// TestInNames: an error names remotes as the command line does, each once with what it is.
func TestInNames(t *testing.T) {
	disk, root, bucket := namedRemote{"disk", "/srv/images"}, namedRemote{"root", "/images"}, namedRemote{"prod", "s3://b/x"}
	for _, test := range []struct {
		named      []namedRemote
		text, want string
	}{
		{[]namedRemote{bucket}, "no s3://b/x: s3://b/x/y, s3://b/x.", "no prod (s3://b/x): s3://b/x/y, prod."},
		{[]namedRemote{disk, disk}, "/srv/images and /srv/images are the same", "disk (/srv/images) and disk are the same"},
		{[]namedRemote{root, disk}, "no /srv/images, /images and /mnt/images", "no disk (/srv/images), root (/images) and /mnt/images"},
		{[]namedRemote{root}, "/images/images: no \"/images\"", "/images/images: no \"root (/images)\""},
		{[]namedRemote{{"a", "/a"}, {"b", "/a"}}, "/a", "a (/a)"},
	} {
		a := &app{named: test.named}
		if got := a.inNames(errors.New(test.text)).Error(); got != test.want {
			t.Errorf("%q becomes %q, want %q", test.text, got, test.want)
		}
	}
}
