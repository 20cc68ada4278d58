package image

import (
	"fmt"
	"strings"
	"testing"
)

func TestOutside(t *testing.T) {
	const url = "https://elsewhere.example/layer"
	descriptor := func(more string) string {
		return `{"mediaType":"m","size":1,"digest":"sha256:` + strings.Repeat("a", 64) + `"` + more + `}`
	}
	plain, out := descriptor(""), descriptor(`,"urls":["`+url+`","https://second.example"]`)
	for doc, want := range map[string]string{
		fmt.Sprintf(`{"config":%s,"layers":[%[1]s,%[1]s]}`, plain):                    "",
		fmt.Sprintf(`{"config":%s,"layers":[%s,%[1]s]}`, plain, out):                  url,
		fmt.Sprintf(`{"config":%s,"layers":[]}`, out):                                 url,
		fmt.Sprintf(`{"manifests":[%s,%s]}`, plain, out):                              url,
		fmt.Sprintf(`{"blobs":[%s]}`, out):                                            url,
		`{"layers":[` + descriptor(`,"urls":[]`) + `]}`:                               "",
		`{"layers":[` + descriptor(`,"urls":null`) + `]}`:                             "",
		`{"layers":[` + descriptor(`,"urls":[""]`) + `]}`:                             `[""]`,
		`{"layers":[` + descriptor(`,"urls":"`+url+`"`) + `]}`:                        `"` + url + `"`,
		`{"layers":[` + descriptor(`,"urls":[],"urls":["`+url+`"]`) + `]}`:            url,
		`{"layers":[` + descriptor(`,"urls":["`+url+`"],"urls":[]`) + `]}`:            url,
		`{"layers":[` + descriptor(`,"URLs":["`+url+`"]`) + `]}`:                      url,
		`{"layers":[` + descriptor(`,"\u0075rls":["`+url+`"]`) + `]}`:                 url,
		`{"config":7,"layers":[7,` + out + `]}`:                                       url,
		`{"rootfs":{"type":"layers"},"config":{"urls":["` + url + `"]},"os":"linux"}`: "",
		`{"layers":[{"annotations":{"urls":"x"}}]}`:                                   "",
		`not JSON`: "",
	} {
		if got := Outside([]byte(doc)); got != want {
			t.Errorf("%s: %q, want %q", doc, got, want)
		}
	}
}
