package layerstore

import (
	"bytes"
	"encoding/base64"
	"slices"

	"github.com/vbatts/tar-split/tar/storage"
)

// line is what is left of a line of a tar-split.
type line []byte

// parse reads an entry, but for its position, from a line in the form in which tar-split writes it. It
// returns false where the line has another form, or a name that is more than plain ASCII: package json
// reads all of them, and takes ten times as long. What it accepts, package json reads as the same.
//
// The payload is in a buffer, or a larger one.
func (l line) parse(entry *storage.Entry, buffer []byte) bool {
	var kind, size, position int64
	var name, payload []byte
	if !l.skip(`{"type":`) || !l.number(&kind) ||
		l.skip(`,"name":`) && !(l.text(&name) && plain(name)) ||
		l.skip(`,"size":`) && !l.number(&size) ||
		!l.skip(`,"payload":`) || !l.skip("null") && !l.decode(&payload, buffer) ||
		!l.skip(`,"position":`) || !l.number(&position) || string(l) != "}" {
		return false
	}
	*entry = storage.Entry{Type: storage.Type(kind), Name: string(name), Size: size, Payload: payload}
	return true
}

func (l *line) skip(s string) bool {
	if len(*l) < len(s) || string((*l)[:len(s)]) != s {
		return false
	}
	*l = (*l)[len(s):]
	return true
}

// number reads a whole number of at most 9 digits, which fits everywhere.
func (l *line) number(n *int64) bool {
	digits := 0
	for digits < len(*l) && (*l)[digits] >= '0' && (*l)[digits] <= '9' {
		*n = 10**n + int64((*l)[digits]-'0')
		if digits++; digits > 9 {
			return false
		}
	}
	if digits == 0 || digits > 1 && (*l)[0] == '0' {
		return false
	}
	*l = (*l)[digits:]
	return true
}

// text reads what is between two quotes.
func (l *line) text(s *[]byte) bool {
	if !l.skip(`"`) {
		return false
	}
	end := bytes.IndexByte(*l, '"')
	if end < 0 {
		return false
	}
	*s, *l = (*l)[:end], (*l)[end+1:]
	return true
}

// plain says whether a text in JSON stands for itself.
func plain(s []byte) bool {
	for _, c := range s {
		if c < ' ' || c >= 0x7f || c == '\\' {
			return false
		}
	}
	return true
}

// decode reads a text in base64 into a buffer, or a larger one.
func (l *line) decode(b *[]byte, buffer []byte) bool {
	var s []byte
	if !l.text(&s) || bytes.IndexByte(s, '\r') >= 0 || bytes.IndexByte(s, '\n') >= 0 { // which base64 allows, and JSON does not
		return false
	}
	buffer = slices.Grow(buffer[:0], base64.StdEncoding.DecodedLen(len(s)))
	n, err := base64.StdEncoding.Decode(buffer[:cap(buffer)], s)
	*b = buffer[:n]
	return err == nil
}
