package original

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/image"
)

// This file is the rules of docs/format.md, "The config". They are frozen: an
// image that is pulled twice has one ID, and it is the one that Docker gave it.

const (
	// mostEngineLayers is how many layers engines take.
	mostEngineLayers = 125

	// tidyVersion is the Docker version from which on a json has nothing in it that
	// is to be dropped but what dropped names.
	tidyVersion = "1.8.3"
)

// emptyTar is the diffID of the tar with nothing in it: 1,024 zeros.
var emptyTar = image.DigestOf(make([]byte, 1024))

// dropped are the members of a json that do not go into a config.
var dropped = []string{"id", "parent", "Size", "parent_id", "layer_id", "throwaway"}

// history is an element of a config's history.
type history struct {
	Created    time.Time `json:"created"`
	Author     string    `json:"author,omitempty"`
	CreatedBy  string    `json:"created_by,omitempty"`
	Comment    string    `json:"comment,omitempty"`
	EmptyLayer bool      `json:"empty_layer,omitempty"`
}

// rootFS is the rootfs of a config.
type rootFS struct {
	Type    string         `json:"type"`
	DiffIDs []image.DiffID `json:"diff_ids,omitempty"`
}

// config returns the config of an image whose entries that have a layer have
// these, bottom first.
func (m *Image) config(diffIDs []image.DiffID) ([]byte, error) {
	doc, err := m.synthesize(diffIDs)
	switch {
	case err != nil:
	case len(doc) > image.MaxDocument:
		err = image.ErrTooLarge
	default:
		_, err = image.ParseConfig(doc)
	}
	if err != nil {
		return nil, wrong(m.Entries[len(m.Entries)-1], err.Error())
	}
	return doc, nil
}

func (m *Image) synthesize(diffIDs []image.DiffID) ([]byte, error) {
	leaveOut := len(diffIDs) > mostEngineLayers
	root := rootFS{Type: "layers"}
	told := make([]history, len(m.Entries))
	for i, e := range m.Entries {
		told[i] = e.history
		if e.Throwaway {
			told[i].EmptyLayer = true
			continue
		}
		id := diffIDs[0]
		diffIDs = diffIDs[1:]
		if leaveOut && id == emptyTar {
			told[i].EmptyLayer = true
			continue
		}
		root.DiffIDs = append(root.DiffIDs, id)
	}
	doc := m.top
	var about struct {
		DockerVersion string `json:"docker_version"`
	}
	if err := json.Unmarshal(doc, &about); err != nil {
		return nil, err
	}
	if lessVersion(about.DockerVersion, tidyVersion) {
		var err error
		if doc, err = normalize(doc); err != nil {
			return nil, err
		}
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(doc, &members); err != nil {
		return nil, err
	}
	for _, name := range dropped {
		delete(members, name)
	}
	var err error
	if members["rootfs"], err = json.Marshal(root); err != nil {
		return nil, err
	}
	if members["history"], err = json.Marshal(told); err != nil {
		return nil, fmt.Errorf("created: %w", err) // a year that JSON has no form for
	}
	return json.Marshal(members)
}

// lessVersion compares versions number by number.
func lessVersion(a, b string) bool {
	one, two := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(one), len(two)) {
		if x, y := numberAt(one, i), numberAt(two, i); x != y {
			return x < y
		}
	}
	return false
}

func numberAt(parts []string, i int) int {
	if i >= len(parts) {
		return 0
	}
	n, err := strconv.Atoi(parts[i])
	if err != nil {
		return 0
	}
	return n
}

// normalize keeps of a json what docs/format.md lists under "Normalising".
func normalize(doc []byte) ([]byte, error) {
	var tidy struct {
		ID              string     `json:"id,omitempty"`
		Parent          string     `json:"parent,omitempty"`
		Comment         string     `json:"comment,omitempty"`
		Created         time.Time  `json:"created"`
		Container       string     `json:"container,omitempty"`
		ContainerConfig runConfig  `json:"container_config"`
		DockerVersion   string     `json:"docker_version,omitempty"`
		Author          string     `json:"author,omitempty"`
		Config          *runConfig `json:"config,omitempty"`
		Architecture    string     `json:"architecture,omitempty"`
		Variant         string     `json:"variant,omitempty"`
		OS              string     `json:"os,omitempty"`
		Size            int64      `json:",omitempty"`
	}
	if err := json.Unmarshal(doc, &tidy); err != nil {
		return nil, err
	}
	return json.Marshal(tidy)
}

// runConfig is what `config` and `container_config` are made of.
type runConfig struct {
	Hostname        string
	Domainname      string
	User            string
	AttachStdin     bool
	AttachStdout    bool
	AttachStderr    bool
	ExposedPorts    map[string]struct{} `json:",omitempty"`
	Tty             bool
	OpenStdin       bool
	StdinOnce       bool
	Env             []string
	Cmd             words
	Healthcheck     *healthcheck `json:",omitempty"`
	ArgsEscaped     bool         `json:",omitempty"`
	Image           string
	Volumes         map[string]struct{}
	WorkingDir      string
	Entrypoint      words
	NetworkDisabled bool   `json:",omitempty"`
	MacAddress      string `json:",omitempty"`
	OnBuild         []string
	Labels          map[string]string
	StopSignal      string `json:",omitempty"`
	StopTimeout     *int   `json:",omitempty"`
	Shell           words  `json:",omitempty"`
}

// healthcheck came with Docker 1.12: an image that has one and says that it is
// older than 1.8.3 lies, and is read all the same.
type healthcheck struct {
	Test        []string      `json:",omitempty"`
	Interval    time.Duration `json:",omitempty"`
	Timeout     time.Duration `json:",omitempty"`
	StartPeriod time.Duration `json:",omitempty"`
	Retries     int           `json:",omitempty"`
}
