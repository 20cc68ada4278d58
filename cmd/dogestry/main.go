// Command dogestry makes a bucket or a directory enough to store and ship
// Docker images.
package main

import (
	"os"

	"github.com/dogestry/dogestry/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
}
