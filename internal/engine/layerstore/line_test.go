package layerstore

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/vbatts/tar-split/tar/storage"
)

// lines are lines of tar-splits, and whether they are parsed without package json.
var lines = map[string]bool{
	`{"type":2,"payload":"aGVhZA==","position":0}`:                                        true,
	`{"type":1,"name":"usr/bin/a b+c~","size":123,"payload":"AAAAAAAAAAA=","position":1}`: true,
	`{"type":1,"name":"empty","payload":"AAAAAAAAAAA=","position":999999999}`:             true,
	`{"type":2,"payload":"","position":3}`:                                                true,
	`{"type":1,"name":"\u0026","size":1,"payload":"","position":1}`:                       false,
	`{"type":1,"name":"ä","size":1,"payload":"","position":1}`:                            false,
	`{"type":1,"name":"a\"b","size":1,"payload":"","position":1}`:                         false,
	`{"type":1,"name_raw":"/w==","size":1,"payload":"","position":1}`:                     false,
	`{"type":1,"name":"a","size":1000000000,"payload":"","position":1}`:                   false,
	`{"type":1,"name":"a","size":-1,"payload":"","position":1}`:                           false,
	`{"type":1,"name":"a","size":01,"payload":"","position":1}`:                           false,
	`{"type":1,"name":"a","size":1.5,"payload":"","position":1}`:                          false,
	`{"type":1,"name":"a","size":1,"payload":"","position":1,"size":2}`:                   false,
	`{"type":2,"payload":"a","position":0}`:                                               false,
	`{"type":1,"name":"usr/","payload":null,"position":1}`:                                true,
	`{"type":2,"payload":nul,"position":0}`:                                               false,
	"{\"type\":2,\"payload\":\"aGVh\rZA==\",\"position\":0}":                              false,
	`{"type":2,"payload":"","position":0}}`:                                               false,
	`{"type":2,"payload":"","position":}`:                                                 false,
	`{"type":,"payload":"","position":0}`:                                                 false,
	`{"type":2,"payload":"`:                                                               false,
	`{"type":2,"payload":`:                                                                false,
	"{\"type\":1,\"name\":\"a\tb\",\"size\":1,\"payload\":\"\",\"position\":1}":           false,
	`{"type":1,"name":"","payload":"","position":1}`:                                      true,
	`{"Type":2,"payload":"","position":0}`:                                                false,
	`{"type":2,"Payload":"","position":0}`:                                                false,
	`{"type":2,"payload":"","payload":"AAAA","position":0}`:                               false,
	`{"type":2,"type":1,"payload":"","position":0}`:                                       false,
	`{"type":1,"name":"a","name":"b","size":1,"payload":"","position":1}`:                 false,
	`{"type":1,"size":1,"name":"a","payload":"","position":1}`:                            false,
	`{"type":1,"name":"a","size":1,"payload":"","position":1} `:                           false,
	`{"type":2,"payload":"aGV\u0073","position":0}`:                                       false,
	"{\"type\":1,\"name\":\"a\x7f\",\"size\":1,\"payload\":\"\",\"position\":1}":          false,
	"{\"type\":1,\"name\":\"a\xff\",\"size\":1,\"payload\":\"\",\"position\":1}":          false,
	``: false,
}

func TestParse(t *testing.T) {
	for s, want := range lines {
		if got := checkParse(t, []byte(s)); got != want {
			t.Errorf("%s: %v, want %v", s, got, want)
		}
	}
	var split bytes.Buffer
	packer := storage.NewJSONPacker(&split)
	for _, e := range []storage.Entry{segment("header"), file("a/b", 7), segment(""), file("c", 0)} {
		_, err := packer.AddEntry(e)
		must(t, err)
	}
	for s := range bytes.Lines(split.Bytes()) {
		if s = bytes.TrimSpace(s); !checkParse(t, s) {
			t.Errorf("tar-split writes %s", s)
		}
	}
}

// TestNext: entries come by parse where they can, whose buffer is used again.
func TestNext(t *testing.T) {
	s, stack := craft(t, "overlay2", []storage.Entry{segment("header"), file("a", 0), segment("foot"), segment("and more than before")}, nil)
	files, split, err := s.find(stack)
	must(t, err)
	defer files.Close()
	e, err := openEntries(split)
	must(t, err)
	defer e.Close()
	for _, want := range []string{"header", "", "foot", "and more than before"} {
		entry, err := e.Next()
		must(t, err)
		if string(entry.Payload) != want {
			t.Errorf("%q, want %q", entry.Payload, want)
		}
		if want == "foot" && cap(e.payload) < len("header") || e.payload == nil {
			t.Errorf("%q is not in the buffer", want)
		}
	}
}

// checkParse looks whether a line that is parsed is what package json says.
func checkParse(t *testing.T, s []byte) bool {
	var got, want storage.Entry
	if !line(s).parse(&got, make([]byte, 3, 5)) {
		return false
	}
	err := json.Unmarshal(s, &want)
	want.Position = 0
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %v, and package json says %v, %v", s, got, want, err)
	}
	return true
}

// FuzzParse makes sure that lines which are parsed are read as package json reads them.
func FuzzParse(f *testing.F) {
	for s := range lines {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, s []byte) { checkParse(t, s) })
}
