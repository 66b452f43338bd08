package event

import "testing"

func TestPartsMatchPatterns(t *testing.T) {
	p := Part{ID: "minio:a", Labels: map[string]string{"host": "h1", "key": AnyEnd}}
	disk := Part{ID: "disk:a:" + AnyEnd}
	for pattern, want := range map[string]bool{
		"minio:a": true, "minio:*": true, "minio:b": false, "minio": false, "host=h1": true, "host=h?": true, "host=h2": false, "h1": false,
		"key=orders/7": true, "key=orders/*": true, "key=": true, "ke*": true, "kex=1": false,
	} {
		if got := p.Matches(pattern); got != want {
			t.Errorf("%s: %v", pattern, got)
		}
	}
	for pattern, want := range map[string]bool{"disk:a:/srv": true, "disk:a:*": true, "disk:*": true, "disk:b:/srv": false, "disk:a": false} {
		if got := disk.Matches(pattern); got != want {
			t.Errorf("%s: %v", pattern, got)
		}
	}
}
