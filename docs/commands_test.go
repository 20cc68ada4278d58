package docs_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/cli"
)

// commandsOf are the command lines of dogestry in the blocks of a page, without what is said about them behind two spaces.
func commandsOf(t *testing.T, page string) (commands []string) {
	t.Helper()
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	fenced := false
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		line = strings.TrimPrefix(line, "$ ")
		if fenced && strings.HasPrefix(line, "dogestry ") && !strings.HasPrefix(line, "dogestry signed tag ") { // which is in a file
			line, _, _ = strings.Cut(line, "  ")
			commands = append(commands, line)
		}
	}
	return commands
}

var (
	shellWord = regexp.MustCompile(`(?:'[^']*'|"[^"]*"|[^\s'"])+`)
	shellEnd  = regexp.MustCompile(`^([|<>;#]|[0-9]>|&&)`)
)

// TestCommands: dogestry understands the command lines of all pages, with their flags and as many arguments.
func TestCommands(t *testing.T) {
	count := 0
	for _, page := range filesOf(t, ".md") {
		for _, line := range commandsOf(t, page) {
			count++
			words := shellWord.FindAllString(line, -1)
			if end := slices.IndexFunc(words, shellEnd.MatchString); end > 0 {
				words = words[:end]
			}
			for i, word := range words {
				words[i] = strings.NewReplacer("'", "", `"`, "").Replace(word)
			}
			c, args, err := cli.Tree().Find(words[1:])
			if err == nil {
				err = c.ParseFlags(args)
			}
			if err == nil {
				err = c.ValidateArgs(c.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: %s: %v", page, line, err)
			}
		}
	}
	if count < 100 {
		t.Errorf("%d command lines were looked at", count)
	}
}
