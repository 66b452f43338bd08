package fleet

// EncodeItem writes an item of work for two places.
var EncodeItem = encodeItem

// DecodeItem reads what EncodeItem wrote.
var DecodeItem = decodeItem

// DecodeDones reads what became of an item.
var DecodeDones = decodeDones
