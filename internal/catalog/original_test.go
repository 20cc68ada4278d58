package catalog_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/catalog"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/original/originaltest"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// TestOriginals: images of format 1.0 are listed, and said to be that; without
// reading a layer, so sizes are those that are stored. Images of today are beside them.
func TestOriginals(t *testing.T) {
	s := mem.New()
	golden := originaltest.Golden()
	for key, content := range golden {
		put(t, s, key, string(content))
	}
	early := originaltest.Repository{}
	early.Tag("early/1", early.Add("", originaltest.Step{Name: "early", Layer: originaltest.Empty(), Plain: true, Members: map[string]any{"os": nil, "architecture": nil}}))
	for key, content := range early {
		put(t, s, key, string(content))
	}
	r := open(t, s)
	push(t, r, "today:1", remotetest.NewImage(t, "today", layer(t, "a", 10)))
	stored := func(name string) (size int64) {
		for _, id := range golden.Chain(originaltest.ID(name)) {
			size += int64(len(golden["images/"+id+"/layer.tar.lz4"]) + len(golden["images/"+id+"/layer.tar"]))
		}
		return size
	}
	one, two := originaltest.ID("RUN one"), originaltest.ID("RUN opaque")
	want := []string{
		"baseless:1 " + originaltest.ID("RUN baseless")[:12] + "   0 0 damaged",
		fmt.Sprintf("deep:127 %s 1.0 linux/amd64 -1 %d ", originaltest.ID("ENV deep=127")[:12], stored("ENV deep=127")),
		fmt.Sprintf("early:1 %s 1.0  -1 1024 ", originaltest.ID("early")[:12]), // it does not say what it runs on
		fmt.Sprintf("localhost:5000/team/myapp:latest %s 1.0 linux/amd64 -1 %d ", one[:12], stored("RUN one")),
		fmt.Sprintf("myapp:1 %s 1.0 linux/amd64 -1 %d ", one[:12], stored("RUN one")),
		fmt.Sprintf("myapp:2 %s 1.0 linux/amd64 -1 %d ", two[:12], stored("RUN opaque")),
		fmt.Sprintf("team/deep/nested:V2 %s 1.0 linux/amd64 -1 %d ", originaltest.ID("RUN late")[:12], stored("RUN late")),
		"today:1",
	}
	dir := t.TempDir()
	for _, c := range []*catalog.Catalog{catalog.New(r), catalog.Cached(r, dir, "here", nil), catalog.Cached(r, dir, "here", nil)} {
		rows, err := c.List(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, row := range rows {
			damage := ""
			if row.Damage != "" {
				damage = "damaged"
			}
			line := fmt.Sprintf("%s %s %s %s %d %d %s", row.Reference, row.ID.Short(), row.Format, row.Platform, row.Size, row.Stored, damage)
			if row.Reference.Repository == "today" {
				line = row.Reference.String()
				if row.Format != "" || row.Size != 10 {
					t.Errorf("an image of today: %+v", row)
				}
			}
			got = append(got, line)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}

	d, err := catalog.New(r).Inspect(t.Context(), remotetest.Ref(t, "myapp:2"))
	if err != nil {
		t.Fatal(err)
	}
	var layers, history []string
	for _, l := range d.Layers {
		layers = append(layers, fmt.Sprintf("%s %d %s", l.Digest.Short(), l.Size, l.Shared))
	}
	for _, h := range d.History {
		history = append(history, strings.TrimPrefix(h.CreatedBy, "/bin/sh -c "))
	}
	all := "[localhost:5000/team/myapp:latest myapp:1"
	if diff := cmp.Diff([]string{
		originaltest.ID("ADD base")[:12] + " -1 " + all + " team/deep/nested:V2]", originaltest.ID("CMD base")[:12] + " -1 " + all + "]",
		originaltest.ID("RUN two")[:12] + " -1 []", two[:12] + " -1 []",
	}, layers); diff != "" {
		t.Errorf("layers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"#(nop) ADD file:1234 in /", `#(nop) CMD ["/bin/app"]`, "echo 2 >/etc/version", "rm -r /srv/old && mkdir /srv/old && touch /srv/old/c",
	}, history); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	if d.Format != "1.0" || d.ID.Hex() != two || len(d.Config.Cmd) != 1 || d.Config.Cmd[0] != "/bin/app" || d.Created == nil {
		t.Errorf("inspect: %+v", d)
	}
	if _, err := catalog.New(r).Inspect(t.Context(), remotetest.Ref(t, "baseless:1")); !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), originaltest.ID("a base that every engine had")) {
		t.Errorf("inspect of an image without its base: %v", err)
	}

	usage, err := catalog.New(r).Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(10 + 1024)
	for key, content := range golden {
		if strings.Contains(key, "/layer.tar") && !strings.Contains(key, originaltest.ID("RUN baseless")) {
			sum += int64(len(content))
		}
	}
	if usage.Total != sum || usage.Damaged != 1 {
		t.Errorf("all take %d, want %d; %d are damaged", usage.Total, sum, usage.Damaged)
	}
}
