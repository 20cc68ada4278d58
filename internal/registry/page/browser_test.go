package page

import (
	"bytes"
	"context"
	"fmt"
	"image"
	_ "image/png"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	// browserVariable makes the test fail where there is no browser; without it, it is left out there.
	browserVariable = "DOGESTRY_TEST_BROWSER"
	// screenshotsVariable names a folder in which the screenshots stay, to be looked at.
	screenshotsVariable = "DOGESTRY_TEST_SCREENSHOTS"
)

// browser returns the name of the browser of this machine.
func browser(t *testing.T) string {
	t.Helper()
	required := os.Getenv(browserVariable) != ""
	if testing.Short() && !required {
		t.Skip("-short: starts a browser")
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if required {
		t.Fatalf("%s is set, and there is no Chromium: run script/bootstrap browser", browserVariable)
	}
	t.Skip("no Chromium on this machine: run script/bootstrap browser")
	return ""
}

// browse lets the browser do something with a page.
func browse(t *testing.T, url string, flags ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, browser(t), append(append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-extensions", "--user-data-dir=" + t.TempDir(),
	}, flags...), url)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if strings.Contains(stderr.String(), "Content Security Policy") {
		t.Errorf("the browser refuses a part of %s:\n%s", url, stderr.String())
	}
	return stdout.Bytes()
}

// TestBrowser: a real browser shows the pages as they are meant, in light and dark, wide and narrow.
func TestBrowser(t *testing.T) {
	browser(t)
	r, _ := sample(t)
	server := httptest.NewServer(open(r))
	defer server.Close()
	pages := map[string]struct{ path, want string }{
		"repositories": {"/", `<a class="name" href="/repositories/shop/api">shop/api</a>`},
		"repository":   {"/repositories/shop/api", `<a class="name" href="/repositories/shop/api?tag=1.8.0">1.8.0</a>`},
		"image":        {"/repositories/shop/api?tag=1.8.0", "ENTRYPOINT"},
		"index":        {"/repositories/multi/tool?tag=4", "linux/arm64"},
		"evil":         {"/repositories/evil/image?tag=1", "&lt;script&gt;"},
	}
	for name, p := range pages {
		if name == "repository" && os.Getenv(screenshotsVariable) == "" {
			continue // it shows no more than the others
		}
		dom := string(browse(t, server.URL+p.path, "--enable-logging=stderr", "--dump-dom"))
		if !strings.Contains(dom, p.want) {
			t.Errorf("%s: no %s in\n%s", name, p.want, dom)
		}
		if strings.Contains(dom, "<title>owned") || strings.Contains(dom, "<script") {
			t.Errorf("%s: a text of an image is more than a text:\n%s", name, dom)
		}
	}
	dir := os.Getenv(screenshotsVariable)
	if dir == "" {
		dir = t.TempDir()
	}
	type shot struct {
		page  string
		width int
		dark  bool
	}
	shots := []shot{{"image", 1200, false}, {"image", 500, true}}
	if os.Getenv(screenshotsVariable) != "" { // all of them take a minute
		shots = nil
		for page := range pages {
			for _, width := range []int{1200, 500} {
				shots = append(shots, shot{page, width, false}, shot{page, width, true})
			}
		}
	}
	for _, s := range shots {
		name := fmt.Sprintf("%s-%d-%s.png", s.page, s.width, map[bool]string{false: "light", true: "dark"}[s.dark])
		file := filepath.Join(dir, name)
		scheme := map[bool]string{false: "1", true: "0"}[s.dark]
		browse(t, server.URL+pages[s.page].path, "--screenshot="+file, fmt.Sprintf("--window-size=%d,1400", s.width), "--blink-settings=preferredColorScheme="+scheme)
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		img, _, err := image.Decode(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		// At the edge there is nothing but paper.
		red, green, blue, _ := img.At(2, 2).RGBA()
		if dark := red+green+blue < 3*0x8000; dark != s.dark {
			t.Errorf("%s: the paper is %x %x %x", name, red, green, blue)
		}
		if w := img.Bounds().Dx(); w != s.width {
			t.Errorf("%s is %d wide", name, w)
		}
	}
}
