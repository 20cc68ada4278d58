package originaltest

import (
	"fmt"
	"strings"
)

// Golden is the repository in testdata/golden/1.0: two images on one base, one of
// them with a layer stored as it is; an image in a nested repository, by the last
// Docker of that time, with members that nobody expects and an entry that was thrown
// away; one on a registry's port, whose tag ends in a line feed; one as deep as
// engines allowed; and one without its base.
func Golden() Repository {
	r := Repository{}
	base := r.Add("", Step{
		Name: "ADD base", Command: "#(nop) ADD file:1234 in /",
		Layer: Tar("etc/", "etc/motd="+strings.Repeat("so portable, much image\n", 40), "etc/issue=wow\n", "srv/", "srv/old/", "srv/old/a=a\n", "srv/old/b=b\n"),
	})
	command := r.Add(base, Step{Name: "CMD base", Command: `#(nop) CMD ["/bin/app"]`, Layer: Empty(), Members: map[string]any{"author": "Shibe <shibe@example.com>"}})
	app := r.Add(command, Step{
		Name: "RUN one", Command: "rm /etc/motd && echo 1 >/etc/version", Layer: Tar("etc/", "etc/.wh.motd", "etc/version=1\n"),
		Members: map[string]any{"comment": "much <comment> & wow"},
	})
	r.Tag("myapp/1", app)
	two := r.Add(command, Step{Name: "RUN two", Command: "echo 2 >/etc/version", Layer: Tar("etc/", "etc/version=2\n"), Plain: true})
	two = r.Add(two, Step{Name: "RUN opaque", Command: "rm -r /srv/old && mkdir /srv/old && touch /srv/old/c", Layer: Tar("srv/", "srv/old/", "srv/old/.wh..wh..opq", "srv/old/c=c\n")})
	r.Tag("myapp/2", two)

	late := func(more map[string]any) map[string]any {
		members := map[string]any{"docker_version": "1.9.1", "created": "2015-12-11T10:09:08.070605+01:00"}
		for name, value := range more {
			members[name] = value
		}
		return members
	}
	nested := r.Add(base, Step{Name: "ENV late", Members: late(map[string]any{"throwaway": true})}) // no layer
	nested = r.Add(nested, Step{
		Name: "RUN late", Command: "echo \"<&>\u2028\" >/etc/odd", Layer: Tar("etc/", "etc/odd=<&>\n"),
		Members: late(map[string]any{
			"parent_id": "sha256:" + ID("parent_id"), "layer_id": "sha256:" + ID("layer_id"), "x-odd": map[string]any{"b": []int{1}, "a": "<&>\u2028"},
			"author": "wow\ttab", "checksum": "tarsum+sha256:1",
		}),
	})
	r.Tag("team/deep/nested/V2", nested)
	r.Tag("localhost%3A5000/team/myapp/latest", app+"\n")

	deep := ""
	for i := 1; i <= 127; i++ {
		s := Step{Name: fmt.Sprintf("ENV deep=%d", i), Layer: Empty()}
		if i%20 == 1 {
			s = Step{Name: fmt.Sprintf("RUN deep %d", i), Command: fmt.Sprintf("echo %d >/deep", i), Layer: Tar(fmt.Sprintf("deep=%d\n", i))}
		}
		deep = r.Add(deep, s)
	}
	r.Tag("deep/127", deep)

	baseless := r.Add(ID("a base that every engine had"), Step{Name: "RUN baseless", Layer: Tar("lost=base\n")})
	r.Tag("baseless/1", baseless)
	return r
}
