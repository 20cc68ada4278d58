package compose

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/fault"
)

// write writes files into a new directory, which is called shop.
func write(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "shop")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const shop = `
services:
  web:
    image: ${REGISTRY:-registry.example.com}/web:${TAG:?say which}
    env_file: not-here.env
    depends_on: [db]
  db:
    image: postgres@sha256:1111111111111111111111111111111111111111111111111111111111111111
  worker:
    build: ./worker
  again:
    extends: web
  debug:
    image: busybox:$BUSYBOX
    profiles: [debug]
`

func TestServices(t *testing.T) {
	dir := write(t, map[string]string{
		"compose.yaml": shop,
		"more.yaml":    "services:\n  worker:\n    image: worker:2\n    build: !reset null\n",
		".env":         "TAG=7\nBUSYBOX=1.36\n",
	})
	t.Chdir(t.TempDir())
	file := filepath.Join(dir, "compose.yaml")
	const db = "db postgres@sha256:1111111111111111111111111111111111111111111111111111111111111111"
	for name, test := range map[string]struct {
		files    []string
		profiles []string
		env      map[string]string
		want     []string
	}{
		"as it is":    {files: []string{file}, want: []string{"again registry.example.com/web:7", db, "web registry.example.com/web:7", "worker shop-worker"}},
		"environment": {files: []string{file}, env: map[string]string{"TAG": "8", "REGISTRY": "r.lan:5000"}, want: []string{"again r.lan:5000/web:8", db, "web r.lan:5000/web:8", "worker shop-worker"}},
		"merged":      {files: []string{file, filepath.Join(dir, "more.yaml")}, want: []string{"again registry.example.com/web:7", db, "web registry.example.com/web:7", "worker worker:2"}},
		"a profile":   {files: []string{file}, profiles: []string{"debug"}, want: []string{"again registry.example.com/web:7", db, "debug busybox:1.36", "web registry.example.com/web:7", "worker shop-worker"}},
		"a profile of the environment": {files: []string{file}, env: map[string]string{"COMPOSE_PROFILES": "debug", "COMPOSE_PROJECT_NAME": "other"}, want: []string{
			"again registry.example.com/web:7", db, "debug busybox:1.36", "web registry.example.com/web:7", "worker other-worker",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range test.env {
				t.Setenv(k, v)
			}
			services, err := Services(t.Context(), test.files, Options{Profiles: test.profiles, Warn: func(line string) { t.Error(line) }})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range services {
				got = append(got, s.Name+" "+s.Image)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestMistakes: what is wrong is told, as is a variable that is not set.
func TestMistakes(t *testing.T) {
	dir := write(t, map[string]string{
		"compose.yaml": shop,
		"broken.yaml":  "services: [\n",
		"strange.yaml": "services:\n  a:\n    imago: b\n",
		"unset.yaml":   "services:\n  a:\n    image: app${NOT_SET}:1\n",
		"bomb.yaml":    "x-a: &a [x,x,x,x,x,x,x,x,x]\nx-b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nx-c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nx-d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\nx-e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nx-f: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\nx-g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nx-h: &h [*g,*g,*g,*g,*g,*g,*g,*g,*g]\nx-i: [*h,*h,*h,*h,*h,*h,*h,*h,*h]\n",
	})
	for name, says := range map[string]string{"compose.yaml": "say which", "broken.yaml": "broken.yaml", "strange.yaml": "imago", "bomb.yaml": "bomb.yaml"} {
		if _, err := Services(t.Context(), []string{filepath.Join(dir, name)}, Options{}); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Services(t.Context(), []string{filepath.Join(dir, "missing.yaml")}, Options{}); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	for _, content := range []string{"A=\"hushed\nB=1\n", "A B hushed\n", "A+hushed=x\n", "A=${hushed-x$\n", "A=${B:?hushed}\n"} {
		dir := write(t, map[string]string{"compose.yaml": "services: {a: {image: b}}\n", ".env": "X=1\n" + content})
		_, err := Services(t.Context(), []string{filepath.Join(dir, "compose.yaml")}, Options{})
		if !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), filepath.Join(dir, ".env")) || strings.Contains(err.Error(), "hushed") {
			t.Errorf("%q: %v", content, err)
		}
	}
	var warned []string
	services, err := Services(t.Context(), []string{filepath.Join(dir, "unset.yaml")}, Options{Warn: func(line string) { warned = append(warned, line) }})
	if err != nil || len(services) != 1 || services[0].Image != "app:1" || len(warned) != 1 || !strings.Contains(warned[0], "NOT_SET") {
		t.Errorf("%v, %v, told %q", services, err, warned)
	}
}
