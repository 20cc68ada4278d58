package config

import "slices"

// Near returns those of names that a typing error may have made said of, sorted.
func Near(said string, names []string) []string {
	var near []string
	for _, name := range names {
		if most := max(1, len(name)/4); distance(said, name, most) <= most {
			near = append(near, name)
		}
	}
	slices.Sort(near)
	return near
}

// distance counts the letters that have to be added, taken away or replaced to make b
// of a. It need not be exact where it is more than most.
func distance(a, b string, most int) int {
	if len(a)-len(b) > most || len(b)-len(a) > most {
		return most + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := before
			if a[i] != b[j] {
				replaced++
			}
			before = row[j+1]
			row[j+1] = min(replaced, before+1, row[j]+1)
		}
	}
	return row[len(b)]
}
