package bucket

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Version is one version of an object, or a delete marker over it.
type Version struct {
	// Key is without the bucket's prefix.
	Key, ID string
	// Marker says that it stands for a deletion, Latest that it is what Stat sees.
	Marker, Latest bool
	Size           int64
	ETag           string
	// Modified is when it was written, by the server's clock.
	Modified time.Time
}

// Versions lists the versions of objects whose keys begin with a prefix, in the order of
// their keys, those of a key from the newest to the oldest. An error comes last, with a
// zero Version. Nobody lists versions as a matter of course: it is read by encoding/xml.
func (b *Bucket) Versions(ctx context.Context, prefix string) iter.Seq2[Version, error] {
	return func(yield func(Version, error) bool) {
		q := url.Values{"versions": {""}, "encoding-type": {"url"}, "prefix": {b.prefix + prefix}, "max-keys": {"1000"}}
		for {
			var p versionsPage
			err := b.do(ctx, "list the versions of", prefix, repeatable, func(ctx context.Context, _ *exchange) error {
				return b.fetchVersions(ctx, q, &p)
			})
			if err != nil {
				yield(Version{}, err)
				return
			}
			for _, v := range p.versions {
				v.Key = strings.TrimPrefix(v.Key, b.prefix)
				if !yield(v, nil) {
					return
				}
			}
			if !p.truncated {
				return
			}
			if p.nextKey == q.Get("key-marker") && p.nextID == q.Get("version-id-marker") {
				yield(Version{}, fmt.Errorf("list the versions of %s: %w: the server continues where it was", b, ErrListing))
				return
			}
			q.Set("key-marker", p.nextKey)
			q.Set("version-id-marker", p.nextID)
		}
	}
}

// versionsPage is one answer to a listing of versions.
type versionsPage struct {
	versions        []Version
	truncated       bool
	nextKey, nextID string
}

// fetchVersions fetches one page, completely or not at all.
func (b *Bucket) fetchVersions(ctx context.Context, query url.Values, p *versionsPage) error {
	u := *b.base
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	answer, err := b.get(ctx, u.String(), nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return readError(answer)
	}
	if err := p.read(io.LimitReader(answer.Body, maxPage), query.Get("prefix")); err != nil {
		return fmt.Errorf("%w: %w", ErrListing, err)
	}
	return nil
}

// read reads a page. Versions and markers come in one order, in elements of two names.
func (p *versionsPage) read(r io.Reader, prefix string) error {
	*p = versionsPage{}
	d := xml.NewDecoder(r)
	told, ended := false, false
	for !ended {
		token, err := d.Token()
		if err != nil {
			return fmt.Errorf("it broke off: %w", err)
		}
		start, ok := token.(xml.StartElement)
		if end, ended2 := token.(xml.EndElement); ended2 {
			ended = end.Name.Local == "ListVersionsResult"
		}
		if !ok || start.Name.Local == "ListVersionsResult" {
			continue
		}
		switch name := start.Name.Local; name {
		case "Version", "DeleteMarker":
			err = p.version(d, start, prefix)
		case "IsTruncated", "NextKeyMarker", "NextVersionIdMarker":
			var text string
			if err = d.DecodeElement(&text, &start); err != nil {
				break
			}
			switch name {
			case "IsTruncated":
				told = true
				p.truncated, err = strconv.ParseBool(text)
			case "NextKeyMarker":
				p.nextKey, err = url.QueryUnescape(text)
			default:
				p.nextID = text
			}
		default:
			err = d.Skip()
		}
		if err != nil {
			return err
		}
	}
	if !told || p.truncated && p.nextKey == "" {
		return fmt.Errorf("it does not say whether, or where, there is more")
	}
	return nil
}

func (p *versionsPage) version(d *xml.Decoder, start xml.StartElement, prefix string) error {
	var v struct {
		Key          string
		VersionID    string `xml:"VersionId"`
		IsLatest     bool
		LastModified time.Time
		ETag         string
		Size         int64
	}
	if err := d.DecodeElement(&v, &start); err != nil {
		return err
	}
	key, err := decodeKey(v.Key, prefix, true)
	if err != nil {
		return err
	}
	p.versions = append(p.versions, Version{
		Key: key, ID: v.VersionID, Marker: start.Name.Local == "DeleteMarker", Latest: v.IsLatest,
		Size: v.Size, ETag: strings.Trim(v.ETag, `"`), Modified: v.LastModified,
	})
	return nil
}
