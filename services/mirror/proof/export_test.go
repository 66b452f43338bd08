package proof

// StartsShard tells tests where shards begin.
var StartsShard = startsShard

// NewDecoder is the one of the package.
var NewDecoder = newDecoder

// Frames gives the places of the shards' frames: offset and length.
func (m *Manifest) Frames() (out [][2]int64) {
	for _, s := range m.shards {
		out = append(out, [2]int64{s.At, s.Length})
	}
	return out
}
