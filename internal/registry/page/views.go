package page

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/dogestry/dogestry/internal/catalog"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// compared bounds the tags whose layers an image's are compared with: at two requests each
// to a bucket where none is remembered.
const compared = 200

// failureView says why there is nothing to see.
type failureView struct{ Status, Message string }

// listView is a part of a list.
type listView struct {
	Filter         string
	Count, Matches int // all of them, and those that Filter fits
	Page, Pages    int
	Earlier, Later string // links; empty where there is none
	Cut            bool   // there are more than are listed
}

// part chooses the page of n matches that was asked for: those from first on, up to end.
func (v *listView) part(n int, ask asked, path string) (first, end int) {
	v.Filter, v.Matches, v.Pages = ask.filter, n, max(1, (n+perPage-1)/perPage)
	v.Page, _ = strconv.Atoi(ask.page)
	v.Page = min(max(v.Page, 1), v.Pages)
	link := func(page int) string {
		return path + "?" + query("filter", ask.filter, "page", strconv.Itoa(page))
	}
	if v.Page > 1 {
		v.Earlier = link(v.Page - 1)
	}
	if v.Page < v.Pages {
		v.Later = link(v.Page + 1)
	}
	return (v.Page - 1) * perPage, min(v.Page*perPage, n)
}

type repositoriesView struct {
	listView
	Remote       string
	Tags         int
	Repositories []repositoryRow
}

type repositoryRow struct {
	Name, Link string
	Tags       int
	Written    age
}

// repositories shows all repositories. It reads no image.
func (p *Page) repositories(ctx context.Context, ask asked) (*repositoriesView, error) {
	all, err := p.tags.get(ctx)
	if err != nil {
		return nil, err
	}
	v := &repositoriesView{Remote: p.o.Remote, Tags: len(all.tags)}
	v.Cut = all.cut
	var rows []repositoryRow
	for i := 0; i < len(all.tags); {
		tags := all.of(all.tags[i].Reference.Repository)
		i += len(tags)
		v.Count++
		name := tags[0].Reference.Repository
		if strings.Contains(name, ask.filter) {
			rows = append(rows, repositoryRow{name, linkTo(name), len(tags), age{tags[0].Modified}})
		}
	}
	first, end := v.part(len(rows), ask, "/")
	v.Repositories = rows[first:end]
	return v, nil
}

type repositoryView struct {
	listView
	Name string
	Tags []tagRow
}

type tagRow struct {
	Name, Link, ID, Platform, Format string
	Created, Written                 age
	Size, Stored                     size
	Damaged                          bool
}

// repository shows the tags of one. It reads the images of those that are shown.
func (p *Page) repository(ctx context.Context, repository string, ask asked) (*repositoryView, error) {
	all, err := p.tags.get(ctx)
	if err != nil {
		return nil, err
	}
	tags := all.of(repository)
	if len(tags) == 0 {
		return nil, errNoPage
	}
	v := &repositoryView{Name: repository}
	v.Count = len(tags)
	if ask.filter != "" {
		tags = slices.DeleteFunc(slices.Clone(tags), func(t remote.Tag) bool { return !strings.Contains(t.Reference.Tag, ask.filter) })
	}
	first, end := v.part(len(tags), ask, linkTo(repository))
	rows, err := p.catalog.Some(ctx, tags[first:end])
	if err != nil {
		return nil, err
	}
	written := map[image.Reference]time.Time{}
	for _, t := range tags[first:end] {
		written[t.Reference] = t.Modified
	}
	for _, r := range rows {
		row := tagRow{
			Name: r.Reference.Tag, Link: linkToTag(r.Reference), ID: r.ID.Short(), Platform: r.Platform, Format: r.Format,
			Created: ageOf(r.Created), Written: age{written[r.Reference]},
			Size: size(r.Size), Stored: size(r.Stored), Damaged: r.Damage != "",
		}
		v.Tags = append(v.Tags, row)
	}
	return v, nil
}

type imageView struct {
	Reference        image.Reference
	RepositoryLink   string
	Host, Remote     string // Host is empty where no registry client can ask here
	Digest           string // by which registry clients pull it; may be empty
	ID, Platform     string
	Format           string
	Created, Written age
	Size, Stored     size
	Shared           size // of Stored
	Platforms        []catalog.Platform
	Layers           []layerRow
	History          []stepRow
	Compared, Others int // the tags that it was compared with, and all others
}

type layerRow struct {
	Digest, Short string
	Size, Stored  size
	Shared        []tagLink // some of them
	More          int
}

type tagLink struct{ Name, Link string }

type stepRow struct {
	By      string
	Created age
	Empty   bool
}

// image shows one image, and what it shares with at most compared others.
func (p *Page) image(ctx context.Context, ref image.Reference, host string) (*imageView, error) {
	all, err := p.tags.get(ctx)
	if err != nil {
		return nil, err
	}
	near := slices.DeleteFunc(all.near(ref.Repository, compared+1), func(t remote.Tag) bool { return t.Reference == ref })
	near = near[:min(compared, len(near))]
	d, err := p.catalog.InspectAmong(ctx, ref, near)
	if err != nil {
		return nil, err
	}
	v := &imageView{
		Reference: ref, RepositoryLink: linkTo(ref.Repository), Remote: p.o.Remote,
		Digest: p.digest(ctx, d), ID: d.ID.String(), Platform: d.Platform, Format: d.Format,
		Created: ageOf(d.Created), Size: size(d.Size), Stored: size(d.Stored),
		Platforms: d.Index, Compared: len(near), Others: max(0, len(all.tags)-1),
	}
	if !strings.Contains(ref.Repository, ":") { // behind a host no name has a port
		v.Host = sensible(host)
	}
	for _, t := range all.of(ref.Repository) {
		if t.Reference == ref {
			v.Written = age{t.Modified}
		}
	}
	counted := map[image.Digest]bool{}
	for _, l := range d.Layers {
		if len(l.Shared) > 0 && !counted[l.Digest] {
			v.Shared += size(l.Stored)
		}
		counted[l.Digest] = true
		v.Layers = append(v.Layers, layerRowOf(l))
	}
	for _, h := range d.History {
		v.History = append(v.History, stepRow{strings.TrimSpace(h.CreatedBy), ageOf(h.Created), h.EmptyLayer})
	}
	return v, nil
}

// shownShares bounds the tags that are named as sharing a layer.
const shownShares = 3

func layerRowOf(l catalog.Layer) layerRow {
	row := layerRow{Digest: l.Digest.String(), Short: l.Digest.Short(), Size: size(l.Size), Stored: size(l.Stored)}
	for _, ref := range l.Shared[:min(shownShares, len(l.Shared))] {
		row.Shared = append(row.Shared, tagLink{ref.String(), linkToTag(ref)})
	}
	row.More = len(l.Shared) - len(row.Shared)
	return row
}

// digest returns the digest of the manifest or index under which registry clients find an image.
func (p *Page) digest(ctx context.Context, d *catalog.Details) string {
	doc, err := p.o.Source.Document(ctx, d.ID)
	if err != nil {
		return "" // also of an image of format 1.0, whose ID is none
	}
	kind, err := image.KindOf(doc)
	switch {
	case err != nil:
		return ""
	case kind != image.ConfigKind:
		return d.ID.String()
	case p.o.ManifestOf == nil:
		return ""
	}
	manifest, err := p.o.ManifestOf(ctx, d.ID)
	if err != nil {
		p.o.Log.Warn("no manifest of an image is shown", "image", d.ID, "error", err)
		return ""
	}
	return image.DigestOf(manifest).String()
}

// hosts are names of hosts, with a port or not.
var hosts = regexp.MustCompile(`^([a-zA-Z0-9.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\])(:[0-9]{1,5})?$`)

// sensible returns a host that a browser has asked, "" where that is none.
func sensible(host string) string {
	if !hosts.MatchString(host) {
		return ""
	}
	return host
}

// age is a time, shown by how long ago it was.
type age struct{ time.Time }

func ageOf(t *time.Time) age {
	if t == nil {
		return age{}
	}
	return age{*t}
}

// Ago returns it as docker does; some builders say 1970 where they do not say when.
func (a age) Ago() string {
	if a.Unix() <= 0 {
		return ""
	}
	return units.HumanDuration(time.Since(a.Time)) + " ago"
}

// Machine returns it for machines, and Full for whoever wants to know exactly.
func (a age) Machine() string { return a.UTC().Format(time.RFC3339) }
func (a age) Full() string    { return a.UTC().Format("2006-01-02 15:04:05 MST") }

// size is in bytes; -1 where it is not known.
type size int64

func (s size) String() string {
	if s < 0 {
		return "?"
	}
	return units.HumanSizeWithPrecision(float64(s), 3)
}
