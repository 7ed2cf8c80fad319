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
  /// Bytes of one handshake, both ways; what a LIST can cost is part of it.
  package var handshakeBytes = 64 << 20
  package var nameBytes = 4_096
  package var contextQueries = 1_024
  /// Contexts that one client can select.
  package var contexts = 64
  /// Bytes in one READ or WRITE.
  package var payloadBytes = 64 << 20
  /// Requests of one connection that wait for slow work.
  package var requestsInFlight = 128
  /// Memory of one connection for slow work and for replies it has not read; one request more is
  /// let in.
  package var bytesInFlight = 64 << 20
  /// The same for all connections together; one connection at a time may go beyond it.
  package var serverBytesInFlight = 512 << 20
  /// What a connection has for itself, whatever the others have taken.
  package var ownBytesInFlight = 256 << 10
  /// While others wait for memory, a payload or a reply that takes longer ends its connection.
  package var stallSeconds = 30
  package var extentsPerReply = 64 << 10
  /// What a client that takes its last replies slowly is given when its connection has to end.
  package var farewellSeconds = 2

  package init() {}
}
