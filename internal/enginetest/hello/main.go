// Command hello is the whole content of the smallest test image: it proves that an image that was moved still runs.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Println("hello from dogestry")
	for _, a := range os.Args[1:] {
		fmt.Println(a)
	}
}
