package scan

// Window is how many items are looked at together.
const Window = window

// ParseNames gives the names in one answer of getdents64(2).
func ParseNames(b []byte) ([]string, error) {
	d := &dir{fd: -1}
	err := d.parse(b)
	var names []string
	start := 0
	for _, end := range d.ends {
		names = append(names, string(d.names[start:end]))
		start = end
	}
	return names, err
}

// Internals that tests compare with each other or feed.
var (
	OpenSteps  = openSteps
	OpenPath   = openPath
	ParseMount = parseMount
	Describe   = describeMount
	SuperUUID  = superUUID
	OwnID      = ownID
)
