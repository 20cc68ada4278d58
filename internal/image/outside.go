package image

import "encoding/json"

// Outside returns what a manifest or index says of where else its config, layers,
// manifests or blobs are to be had: the first `urls` of a descriptor that is not
// empty (OCI image-spec, descriptor.md). Engines may fetch from there, also where
// the bytes are at hand. It returns "" where there is none, or where doc is neither.
func Outside(doc []byte) string {
	var m struct {
		Config    pointer   `json:"config"`
		Layers    []pointer `json:"layers"`
		Manifests []pointer `json:"manifests"`
		Blobs     []pointer `json:"blobs"`
	}
	if kind, _ := KindOf(doc); kind == ConfigKind { // whose members have other meanings
		return ""
	}
	// A member of another type is an error at the end, and does not keep the others
	// from being read.
	_ = json.Unmarshal(doc, &m)
	all := append([]pointer{m.Config}, m.Layers...)
	for _, p := range append(append(all, m.Manifests...), m.Blobs...) {
		if p.URLs != "" {
			return string(p.URLs)
		}
	}
	return ""
}

// pointer is a descriptor as far as it points elsewhere.
type pointer struct {
	URLs elsewhere `json:"urls"`
}

// elsewhere is the first text of a list, also where the list is there again: which
// of two counts, decoders do not agree on. What is no list of texts is somewhere, too.
type elsewhere string

// UnmarshalJSON implements json.Unmarshaler.
func (e *elsewhere) UnmarshalJSON(b []byte) error {
	var list []string
	switch err := json.Unmarshal(b, &list); {
	case *e != "":
	case err != nil:
		*e = elsewhere(b)
	case len(list) > 0:
		if *e = elsewhere(list[0]); list[0] == "" {
			*e = elsewhere(b)
		}
	}
	return nil
}
