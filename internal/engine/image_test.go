package engine

import (
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

func TestNear(t *testing.T) {
	names := []string{
		"myapp:1", "myapp:2", "myapp:latest", "team/myapp:1", "localhost:5000/team/myapp:1", "mapp:1", "postgres:16", "postgres:15", "redis:7", "a:1", "b:1",
	}
	for _, c := range []struct {
		name string
		want string
	}{
		{"myapp:3", "myapp:1 myapp:2 myapp:latest localhost:5000/team/myapp:1 mapp:1"},
		{"myapp", "myapp:latest myapp:1 myapp:2 localhost:5000/team/myapp:1 mapp:1"},
		{"myap:1", "myapp:1 myapp:2 myapp:latest"},
		{"postgers:16", "postgres:16 postgres:15"},
		{"other/redis:6", "redis:7"},
		{"localhost:5000/redis", "redis:7"},
		{"zookeeper:1", ""},
		{"c:1", "a:1 b:1"},
		{"", "a:1 b:1"},
		{strings.Repeat("x", 300), ""},
	} {
		if got := strings.Join(Near(c.name, names), " "); got != c.want {
			t.Errorf("near %.30q: %s, want %s", c.name, got, c.want)
		}
	}
	if got := Near("a", nil); got != nil {
		t.Errorf("near nothing: %q", got)
	}
}

func TestInspect(t *testing.T) {
	many := make([]string, image.MaxLayers+1)
	for i := range many {
		many[i] = number(i).String()
	}
	f := &fake{images: map[string]fakeImage{
		number(1).String(): {layers: []string{number(2).String(), number(2).String()}, tags: []string{"myapp:1", "myapp:2"}},
		number(3).String(): {layers: many},
		number(4).String(): {layers: []string{"sha256:nonsense"}},
		"strange":          {},
	}}
	c := f.connect(t)
	img, err := c.Inspect(t.Context(), number(1).String())
	if err != nil || img.ID != number(1) || !slices.Equal(img.DiffIDs, []image.DiffID{number(2), number(2)}) || img.String() != "myapp:1" {
		t.Errorf("image %+v, error %v", img, err)
	}
	for _, name := range []string{number(3).String(), number(4).String(), "strange"} {
		if _, err := c.Inspect(t.Context(), name); !fault.Is(err, fault.Other) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	_, err = c.Inspect(t.Context(), "myap:1")
	if !fault.Is(err, fault.NotFound) || !strings.Contains(fault.AdviceOf(err), "myapp:1, myapp:2") {
		t.Errorf("error %v, advice %q", err, fault.AdviceOf(err))
	}
	for id, want := range map[image.ID]bool{number(1): true, number(9): false} {
		if has, err := c.Has(t.Context(), id); has != want || err != nil {
			t.Errorf("has %s: %v, error %v", id.Short(), has, err)
		}
	}
}
