package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// filesOf lists the files of the sources whose names end so, relative to this folder.
func filesOf(t *testing.T, suffixes ...string) (files []string) {
	t.Helper()
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := filepath.Base(name)
		if d.IsDir() && (base == "bin" || base == "testdata" || strings.HasPrefix(base, ".") && base != "..") {
			return fs.SkipDir
		}
		if d.Type().IsRegular() && slices.Contains(suffixes, filepath.Ext(name)) {
			files = append(files, name)
		}
		return nil
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	return files
}

var codeSpan = regexp.MustCompile("`[^`]*`")

// proseOf is a page without its fenced blocks, line by line.
func proseOf(t *testing.T, page string) (lines []string) {
	t.Helper()
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	fenced := false
	for line := range strings.Lines(string(content)) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
		} else if !fenced {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	return lines
}

// anchorsOf are those that GitHub gives to the headings of a page.
func anchorsOf(t *testing.T, page string) map[string]bool {
	t.Helper()
	anchors := map[string]bool{}
	for _, line := range proseOf(t, page) {
		title := strings.TrimLeft(line, "#")
		if title == line || !strings.HasPrefix(title, " ") {
			continue
		}
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(title))
		unique := anchor
		for n := 1; anchors[unique]; n++ {
			unique = anchor + "-" + strconv.Itoa(n)
		}
		anchors[unique] = true
	}
	return anchors
}

// TestLinks: what pages link to is there, with its heading.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	count := 0
	for _, page := range filesOf(t, ".md") {
		for _, line := range proseOf(t, page) {
			for _, found := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(line, "``"), -1) {
				target := found[1]
				if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
					continue
				}
				count++
				name, anchor, anchored := strings.Cut(target, "#")
				file := page
				if name != "" {
					file = filepath.Join(filepath.Dir(page), name)
				}
				if _, err := os.Stat(file); err != nil {
					t.Errorf("%s links to %s, which is not there", page, target)
				} else if anchored && !anchorsOf(t, file)[anchor] {
					t.Errorf("%s links to %s: no heading is called so", page, target)
				}
			}
		}
	}
	if count < 100 {
		t.Errorf("%d links were looked at", count)
	}
}

// TestPagesNamed: pages that the program, its sources and other pages name are there.
func TestPagesNamed(t *testing.T) {
	named := regexp.MustCompile(`(?:containerd, |/)?\bdocs/(?:decisions/)?[0-9a-z-]+\.md\b`)
	count := 0
	for _, file := range filesOf(t, ".md", ".go", ".service", ".env", ".yml") {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range named.FindAllString(string(content), -1) {
			if !strings.HasPrefix(page, "docs/") { // of containerd
				continue
			}
			count++
			if _, err := os.Stat(filepath.Join("..", page)); err != nil {
				t.Errorf("%s names %s, which is not there", file, page)
			}
		}
	}
	if count < 50 {
		t.Errorf("%d names were looked at", count)
	}
}

// TestTree: the tree of architecture.md has each folder with sources, and no other.
func TestTree(t *testing.T) {
	content, err := os.ReadFile("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, tree, _ := strings.Cut(string(content), "## The tree\n\n```\n")
	tree, _, _ = strings.Cut(tree, "```")
	shown := map[string]bool{}
	for line := range strings.Lines(tree) {
		names, _, _ := strings.Cut(strings.TrimSpace(line), "  ")
		for _, name := range strings.Fields(names) {
			for _, part := range strings.Split(strings.Trim(name, "/"), "/") {
				shown[part] = true
			}
		}
	}
	there := map[string]bool{}
	for _, file := range filesOf(t, ".go") {
		for _, part := range strings.Split(filepath.ToSlash(filepath.Dir(file)), "/")[1:] {
			there[part] = true
			if !shown[part] {
				t.Errorf("the tree lacks %s, of %s", part, file)
			}
		}
	}
	for name := range shown {
		if found, _ := filepath.Glob(filepath.Join("..", name)); !there[name] && len(found) == 0 {
			t.Errorf("the tree has %s, which is not there", name)
		}
	}
}
