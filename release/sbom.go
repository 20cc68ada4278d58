package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// bill is a software bill of materials: the part of CycloneDX 1.5 in JSON that is written
// here. https://cyclonedx.org/docs/1.5/json/
type bill struct {
	Schema      string      `json:"$schema"`
	Format      string      `json:"bomFormat"`
	SpecVersion string      `json:"specVersion"`
	Serial      string      `json:"serialNumber"`
	Version     int         `json:"version"`
	Metadata    metadata    `json:"metadata"`
	Components  []component `json:"components"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	PackageURL string     `json:"purl,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// billOf lists what is linked into a program: the modules that Go has noted in it, which
// are fewer than those of go.mod, and the standard library.
func billOf(info *debug.BuildInfo, version, commit string, at time.Time, program []byte) ([]byte, error) {
	sum := sha256.Sum256(program)
	of := packageURL(info.Main.Path, version)
	b := bill{
		Schema: "http://cyclonedx.org/schema/bom-1.5.schema.json", Format: "CycloneDX", SpecVersion: "1.5", Version: 1, Serial: serial(sum),
		Metadata: metadata{
			Timestamp: at.Format(time.RFC3339),
			Component: component{
				Type: "application", Ref: of, Name: "dogestry", Version: version, PackageURL: of,
				Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}},
			},
		},
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS", "GOARCH":
			b.Metadata.Component.Properties = append(b.Metadata.Component.Properties, property{"go:" + s.Key, s.Value})
		}
	}
	if commit != "" {
		b.Metadata.Component.Properties = append(b.Metadata.Component.Properties, property{"git:commit", commit})
	}
	std := strings.TrimPrefix(info.GoVersion, "go")
	std, _, _ = strings.Cut(std, " ")
	b.Components = append(b.Components, component{
		Type: "library", Ref: packageURL("std", std), Name: "std", Version: std, PackageURL: packageURL("std", std),
	})
	for _, m := range info.Deps {
		if m.Replace != nil {
			return nil, fmt.Errorf("%s is replaced, and then nobody knows what it is", m.Path)
		}
		of := packageURL(m.Path, m.Version)
		c := component{Type: "library", Ref: of, Name: m.Path, Version: m.Version, PackageURL: of}
		if m.Sum != "" {
			c.Properties = []property{{"go:sum", m.Sum}} // of the module's tree, so it is none of the specification's hashes
		}
		b.Components = append(b.Components, c)
	}
	slices.SortFunc(b.Components, func(a, b component) int { return cmp.Compare(a.Ref, b.Ref) })
	out, err := json.MarshalIndent(b, "", "  ")
	return append(out, '\n'), err
}

// packageURL names a Go module: https://github.com/package-url/purl-spec
func packageURL(module, version string) string {
	return "pkg:golang/" + strings.ToLower(module) + "@" + url.QueryEscape(version)
}

// serial is a UUID that depends on the program alone (RFC 9562, version 8), where others take
// a random one, so that the bill can be made again.
func serial(sum [sha256.Size]byte) string {
	sum[6] = sum[6]&0x0f | 0x80
	sum[8] = sum[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}
