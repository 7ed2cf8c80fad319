/// What a client may ask of this server; each is far beyond what honest clients need.
package struct Limits: Sendable {
  /// Seconds from connecting to the end of the handshake.
  package var handshakeSeconds = 10
  package var connections = 1_024
  /// Option data that is looked at; longer is consumed and answered with ERR_TOO_BIG …
  package var optionBytes = 64 << 10
  /// … and beyond this the connection ends.
  package var optionDrainBytes = 32 << 20
  package var options = 1_024
  package var nameBytes = 4_096
  package var contextQueries = 1_024
  /// Bytes in one READ or WRITE.
  package var payloadBytes = 64 << 20
  /// Requests of one connection that wait for slow work.
  package var requestsInFlight = 128
  /// Bytes of one connection in slow work; one request more is let in.
  package var bytesInFlight = 64 << 20
  package var extentsPerReply = 64 << 10

  package init() {}
}
