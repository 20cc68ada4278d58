// Package originaltest makes repositories as the original dogestry left them, small
// and always the same, for tests.
package originaltest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pierrec/lz4/v4"
)

// Repository is objects by their keys.
type Repository map[string][]byte

// Step is an entry: what one command of a Dockerfile made.
type Step struct {
	Name    string         // from which its ID comes, and its command, if Command is empty
	Command string         // of container_config
	Members map[string]any // of its json, beside or instead of those that it has
	JSON    string         // all of its json, if not empty
	Layer   []byte         // a tar; nil leaves the file out
	Plain   bool           // the layer is stored as it is
}

// ID returns the ID of the entry of that name. It looks random, as they were.
func ID(name string) string {
	sum := sha256.Sum256([]byte("the original dogestry: " + name))
	return hex.EncodeToString(sum[:])
}

// Add adds an entry on top of parent, which may be empty, and returns its ID.
func (r Repository) Add(parent string, s Step) string {
	id := ID(s.Name)
	entry := "images/" + id + "/"
	r[entry+"VERSION"] = []byte("1.0")
	if s.JSON == "" {
		s.JSON = string(marshal(s.members(id, parent)))
	}
	r[entry+"json"] = []byte(s.JSON)
	switch {
	case s.Layer == nil:
	case s.Plain:
		r[entry+"layer.tar"] = s.Layer
	default:
		r[entry+"layer.tar.lz4"] = compress(s.Layer)
	}
	return id
}

func (s Step) members(id, parent string) map[string]any {
	command := s.Command
	if command == "" {
		command = "#(nop) " + s.Name
	}
	run := map[string]any{
		"Hostname": "5f2d1a8e9c40", "Domainname": "", "User": "", "Memory": 0, "MemorySwap": 0, "CpuShares": 0,
		"AttachStdin": false, "AttachStdout": false, "AttachStderr": false, "PortSpecs": nil, "ExposedPorts": nil,
		"Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": []string{"HOME=/", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
		"Cmd": []string{"/bin/sh", "-c", command}, "Dns": nil, "Image": parent, "Volumes": nil, "VolumesFrom": "",
		"WorkingDir": "", "Entrypoint": nil, "NetworkDisabled": false, "OnBuild": nil,
	}
	config := maps.Clone(run)
	config["Cmd"] = []string{"/bin/app"}
	members := map[string]any{
		"id": id, "created": "2013-12-11T10:09:08.070605Z", "container": ID("container of " + s.Name),
		"container_config": run, "config": config, "docker_version": "0.7.0", "architecture": "amd64", "os": "linux",
		"Size": len(s.Layer),
	}
	if parent != "" {
		members["parent"] = parent
	}
	for name, value := range s.Members {
		if value == nil {
			delete(members, name)
		} else {
			members[name] = value
		}
	}
	return members
}

func marshal(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // nothing here can fail
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func compress(b []byte) []byte {
	var out bytes.Buffer
	w := lz4.NewWriter(&out)
	if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(true)); err != nil {
		panic(err)
	}
	if _, err := w.Write(b); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// Tag lets a tag, "repository/tag" as in its key, name an ID.
func (r Repository) Tag(name, id string) { r["repositories/"+name] = []byte(id) }

// Write writes the repository to a directory.
func (r Repository) Write(dir string) error {
	for key, content := range r {
		name := filepath.Join(dir, filepath.FromSlash(key))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Chain returns the IDs from top down to the lowest that is there.
func (r Repository) Chain(top string) (ids []string) {
	for top != "" && !slices.Contains(ids, top) {
		doc, ok := r["images/"+top+"/json"]
		if !ok {
			break
		}
		ids = append(ids, top)
		var j struct{ Parent string }
		if json.Unmarshal(doc, &j) != nil {
			break
		}
		top = j.Parent
	}
	return ids
}

// Archive returns the image with that top entry as a `docker save` of its time wrote
// it, by the name repository:tag.
func (r Repository) Archive(top, repository, tag string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	file := func(name string, content []byte) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			panic(err)
		}
		if _, err := w.Write(content); err != nil {
			panic(err)
		}
	}
	for _, id := range r.Chain(top) {
		if err := w.WriteHeader(&tar.Header{Name: id + "/", Mode: 0o755, Typeflag: tar.TypeDir}); err != nil {
			panic(err)
		}
		for _, name := range []string{"VERSION", "json"} {
			file(id+"/"+name, r["images/"+id+"/"+name])
		}
		file(id+"/layer.tar", r.layer(id))
	}
	file("repositories", marshal(map[string]any{repository: map[string]string{tag: top}}))
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// layer returns the decoded layer of an entry.
func (r Repository) layer(id string) []byte {
	if plain, ok := r["images/"+id+"/layer.tar"]; ok {
		return plain
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(lz4.NewReader(bytes.NewReader(r["images/"+id+"/layer.tar.lz4"]))); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// Empty is the tar with nothing in it, as Docker wrote it for a command that changed no file.
func Empty() []byte { return make([]byte, 1024) }

// Tar returns the tar of files: "name=content", a directory where the name ends in
// a slash, and a whiteout where its last part begins with ".wh.".
func Tar(files ...string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		name, content, _ := strings.Cut(f, "=")
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			h.Mode, h.Typeflag = 0o755, tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}
