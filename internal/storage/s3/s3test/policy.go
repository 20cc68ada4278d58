package s3test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// What the policies of docs/s3.md call the bucket and whoever may use it.
const (
	documentedBucket    = "my-bucket"
	documentedPrincipal = "arn:aws:iam::111122223333:role/dogestry"
)

// Policy is one of docs/s3.md.
type Policy struct {
	Version   string
	Statement []Statement
}

// Statement is a part of a policy.
type Statement struct {
	Sid       string
	Effect    string
	Principal any // {"AWS": …}, or "*"
	Action    []string
	Resource  []string
}

// ReadPolicy returns the policy in docs/s3.md that stands behind <!-- policy: name -->, so that a test can show that it
// does what is said there. The working directory is in the module, as in a test.
func ReadPolicy(name string) (Policy, error) {
	root, err := moduleRoot()
	if err != nil {
		return Policy{}, err
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "s3.md"))
	if err != nil {
		return Policy{}, err
	}
	block := regexp.MustCompile("(?s)<!-- policy: " + regexp.QuoteMeta(name) + " -->\\s*```json\n(.*?)```").FindSubmatch(text)
	if block == nil {
		return Policy{}, fmt.Errorf("docs/s3.md has no policy %s", name)
	}
	var p Policy
	if err := json.Unmarshal(block[1], &p); err != nil {
		return Policy{}, fmt.Errorf("the policy %s in docs/s3.md: %w", name, err)
	}
	return p, nil
}

// Actions returns all that the policy allows, as written.
func (p Policy) Actions() []string {
	var actions []string
	for _, s := range p.Statement {
		actions = append(actions, s.Action...)
	}
	return actions
}

// For is the policy for a bucket and an account of a server, as PutPolicy takes it, less the nth of its Actions; a
// negative n leaves all.
func (p Policy) For(bucket string, a Account, n int) string {
	var kept []Statement
	for _, s := range p.Statement {
		s.Action = slices.Clone(s.Action)
		if n >= 0 && n < len(s.Action) {
			s.Action = slices.Delete(s.Action, n, n+1)
			n = -1
		} else if n >= 0 {
			n -= len(s.Action)
		}
		if len(s.Action) > 0 {
			kept = append(kept, s)
		}
	}
	p.Statement = kept
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // it was JSON
	}
	return strings.NewReplacer(documentedBucket, bucket, documentedPrincipal, a.AccessKey).Replace(string(b))
}

// Public is the policy for everybody, with and without a signature.
func (p Policy) Public(bucket string) string {
	p.Statement = slices.Clone(p.Statement)
	for i := range p.Statement {
		p.Statement[i].Principal = "*"
	}
	return p.For(bucket, Account{}, -1)
}
