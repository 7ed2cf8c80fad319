internal import PloopHTTP
internal import PloopJSON

/// Prints a value as one line.
func printJSON(_ value: JSON) {
  print(String(decoding: value.encoded, as: UTF8.self))
}
