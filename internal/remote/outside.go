package remote

import (
	"net/url"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// CheckOutside returns the Refused fault of documents of which one points outside
// (image.Outside): some engines fetch a layer from where a manifest says, also
// where they could have it from the remote. Name is what the user called them.
func CheckOutside(name string, docs ...[]byte) error {
	for _, doc := range docs {
		if where := image.Outside(doc); where != "" {
			return fault.New(fault.Refused, "%s points outside: its manifest lets %s", name, PointsTo(where)).
				Advise("What a tag names has to be complete in the remote. Build the image anew, on a base image without such layers (`urls` in its manifest).")
		}
	}
	return nil
}

// PointsTo says in words where something that image.Outside returned leads, and
// not the whole of it, which may have a password or a signature in it.
func PointsTo(where string) string {
	if u, err := url.Parse(where); err == nil && u.Host != "" {
		return "a layer or another part be fetched from " + u.Scheme + "://" + u.Host
	}
	return "a layer or another part be fetched from elsewhere"
}
