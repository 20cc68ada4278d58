package image

import "encoding/json"

// Members returns the values of those of the names that the JSON object doc has
// as keys. A name that occurs twice or in other letter case is an error, and so is
// what is no JSON object, or has something behind it.
func Members(doc []byte, names ...string) (map[string]json.RawMessage, error) {
	return uniqueKeys(doc, names...)
}
