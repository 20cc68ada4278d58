package enginetest

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
)

const (
	bigFile  = 16 << 20 // a file in a layer of BigImage
	bigChunk = 64 << 10 // half noise, half text
	bigRun   = 512      // noise and text alternate at this length
	tarBlock = 512      // of any tar
	tarEnd   = 2 * 512  // of any tar
	bigText  = "much image, very layer, such digest. wow. so half compressible as half of what is in real layers. "
)

// BigImage makes an image of layers layers with layerBytes bytes of files each, in files of 16 MiB. No more than 64 KiB of
// it is ever in memory. About half of it compresses away, with any codec. Ref is dogestry-test/big:<layers>x<layerBytes>.
func BigImage(layers int, layerBytes int64) *Image {
	m := NewImage().Tag(fmt.Sprintf("%s/big:%dx%d", Repository, layers, layerBytes))
	for i := range layers {
		m.Add(bigLayer(uint64(i), layerBytes))
	}
	return m
}

func bigLayer(seed uint64, layerBytes int64) *Layer {
	size := int64(tarEnd)
	for left := layerBytes; left > 0; left -= bigFile {
		n := min(left, bigFile)
		size += tarBlock + (n+tarBlock-1)/tarBlock*tarBlock
	}
	return StreamLayer(size, func(w io.Writer) error {
		t := tar.NewWriter(w)
		noise := rand.NewPCG(seed, 0)
		chunk := make([]byte, bigChunk)
		for i := range chunk {
			chunk[i] = bigText[i%len(bigText)]
		}
		for n := 0; layerBytes > int64(n)*bigFile; n++ {
			left := min(layerBytes-int64(n)*bigFile, bigFile)
			h := archiveHeader(fmt.Sprintf("big-%d-%04d", seed, n), left)
			if err := t.WriteHeader(h); err != nil {
				return err
			}
			for left > 0 {
				for at := 0; at < len(chunk); at += 2 * bigRun {
					for i := at; i < at+bigRun; i += 8 {
						binary.LittleEndian.PutUint64(chunk[i:], noise.Uint64())
					}
				}
				k := min(left, bigChunk)
				if _, err := t.Write(chunk[:k]); err != nil {
					return err
				}
				left -= k
			}
		}
		return t.Close()
	})
}
