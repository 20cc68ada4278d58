package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/trust"
)

func (a *app) keygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen [flags] FILE",
		Short: "Make a pair of keys to sign tags with",
		Long: `Make a pair of keys: FILE, the private one, with which pushes sign tags, and
FILE.pub, the public one, with which pulls verify them. Whoever can write a
remote, and has no private key, can then neither move a tag nor put back an old
one without being noticed.

Nothing is overwritten. The private key has no passphrase: it belongs where the
pushes run, and nowhere else.`,
		Example: `  dogestry keygen release.key
  dogestry push s3://bucket/images myapp:live --sign-key release.key
  dogestry pull s3://bucket/images myapp:live --verify-key release.key.pub`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if args[0] == "" {
				return fault.New(fault.Usage, "the file is empty").Advise("Name the file for the private key.")
			}
			id, err := trust.WriteKeys(args[0])
			if err != nil {
				return err
			}
			return a.printKeys(id, args[0])
		},
	}
}

func (a *app) printKeys(id, file string) error {
	public := file + trust.PublicSuffix
	if a.json {
		a.printJSON(struct {
			Key     string `json:"key"`
			Private string `json:"private"`
			Public  string `json:"public"`
		}{id, file, public})
		return nil
	}
	if _, err := fmt.Fprintln(a.out, id); err != nil {
		return err
	}
	if !a.quiet {
		fmt.Fprintf(a.errOut, "%s signs, for `push --sign-key`: keep it secret\n%s verifies, for `pull --verify-key`: give it to all who pull\n", printable(file), printable(public))
	}
	return nil
}
