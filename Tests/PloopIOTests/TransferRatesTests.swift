import PloopIO
import Testing

@Suite("Changes of transfer rates")
struct TransferRatesTests {
  private let rates = TransferRates(
    readBytes: 1, writeBytes: 2, readOperations: 3, writeOperations: 4, burstSeconds: 5)

  @Test("what is not said stays, and nil within is what it is where nothing is said")
  func members() {
    #expect(TransferRatesChange().applied(to: rates) == rates)
    let change = TransferRatesChange(
      readBytes: 10, writeBytes: .some(nil), writeOperations: 0, burstSeconds: .some(nil))
    #expect(change.applied(to: rates) == TransferRates(readBytes: 10, readOperations: 3))
    #expect(change.applied(to: nil) == TransferRates(readBytes: 10))
  }

  @Test("where nothing is limited any more there are no rates")
  func unlimited() {
    #expect(TransferRatesChange.reset.applied(to: rates) == nil)
    #expect(TransferRatesChange().applied(to: nil) == nil)
    #expect(TransferRatesChange(burstSeconds: 9).applied(to: nil) == nil)
    let last = TransferRates(writeOperations: 7, burstSeconds: 2)
    #expect(TransferRatesChange(writeOperations: 0).applied(to: last) == nil)
    #expect(TransferRatesChange(readBytes: 0).applied(to: last) == last)
  }
}
