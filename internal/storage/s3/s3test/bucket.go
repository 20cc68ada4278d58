package s3test

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// NewBucket makes an empty bucket with a name that no other has.
func (s *Server) NewBucket() (string, error) {
	name := "test-" + strings.ToLower(rand.Text())
	return name, os.Mkdir(s.Dir(name), 0o700) // to the server a folder is a bucket, whoever made it
}

// Dir is the folder of a bucket: an object is a file under its key, with its metadata in extended attributes. What the
// server keeps for itself is in .sgwtmp there.
func (s *Server) Dir(bucket string) string { return filepath.Join(s.dir, dataName, bucket) }

// OpenUploads returns the multipart uploads of a bucket that were neither completed nor aborted: the sha256 of the key, a
// slash, and the upload's ID. They are read from the folder, also while the server is killed. A PutObject that broke leaves
// nothing there. A part that the server was writing when its upload was aborted leaves a folder that the server itself knows
// no key of, does not list and cannot abort: that is no upload.
func (s *Server) OpenUploads(bucket string) ([]string, error) {
	root := filepath.Join(s.Dir(bucket), ".sgwtmp", "multipart")
	keys, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var open []string
	for _, key := range keys {
		if !hasKey(filepath.Join(root, key.Name())) {
			continue
		}
		uploads, err := os.ReadDir(filepath.Join(root, key.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, upload := range uploads {
			open = append(open, key.Name()+"/"+upload.Name())
		}
	}
	return open, nil
}
