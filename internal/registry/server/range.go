package server

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/dogestry/dogestry/internal/image"
)

// part is some bytes of a blob; length is not 0.
type part struct{ offset, length int64 }

// part reads the header Range (RFC 9110, section 14.2). ok is false where all is to
// be sent: without one, with several ranges or one that is not understood, where
// If-Range names other bytes, and where the size is not known. A range that lies
// outside of the blob is a failure.
func (s *Server) part(c call, id image.Digest, size int64) (p part, ok bool, err error) {
	spec, ok := strings.CutPrefix(c.r.Header.Get("Range"), "bytes=")
	if !ok || size < 0 {
		return part{}, false, nil
	}
	if condition := c.r.Header.Get("If-Range"); condition != "" && condition != etag(id) {
		return part{}, false, nil // a date, too: nothing here has one
	}
	first, last, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return part{}, false, nil
	}
	if first == "" { // the last n bytes
		n, isNumber := number(last)
		if !isNumber {
			return part{}, false, nil
		}
		n = min(n, size)
		if n == 0 {
			return part{}, false, outside(size)
		}
		return part{size - n, n}, true, nil
	}
	start, isNumber := number(first)
	end := size - 1
	if isNumber && last != "" {
		end, isNumber = number(last)
	}
	switch {
	case !isNumber:
		return part{}, false, nil
	case start >= size, end < start:
		return part{}, false, outside(size)
	}
	return part{start, min(end, size-1) - start + 1}, true, nil
}

// number reads digits, and nothing else.
func number(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

func outside(size int64) error {
	return &failure{
		status: http.StatusRequestedRangeNotSatisfiable, code: codeRangeInvalid,
		message: "the range lies outside of the blob",
		header:  http.Header{"Content-Range": {fmt.Sprintf("bytes */%d", size)}},
	}
}
