import PloopIO
import TestSupport
import Testing

@Suite("A bitmap")
struct BitmapTests {
  @Test("bits are set and cleared one by one, also at the borders of words")
  func setsAndClears() {
    var bitmap = Bitmap(count: 130)
    for index in [0, 63, 64, 127, 128, 129] { bitmap[index] = true }
    #expect(bitmap.setCount == 6)
    #expect(bitmap.lastSet == 129)
    bitmap[129] = false
    bitmap[64] = false
    #expect((0..<130).filter { bitmap[$0] } == [0, 63, 127, 128])
    #expect(!bitmap[5000])
  }

  @Test("the first clear bit is found in the same word, in a later one, and nowhere")
  func findsClear() {
    var bitmap = Bitmap(count: 130)
    for index in 0..<130 { bitmap[index] = true }
    #expect(bitmap.firstClear(from: 0) == nil)
    bitmap[3] = false
    bitmap[129] = false
    #expect(bitmap.firstClear(from: 0) == 3)
    #expect(bitmap.firstClear(from: 3) == 3)
    #expect(bitmap.firstClear(from: 4) == 129)
    #expect(bitmap.firstClear(from: 130) == nil)
  }

  @Test("ranges are set and found clear as their bits are")
  func ranges() {
    for (low, high) in [(0, 1), (0, 64), (5, 9), (60, 68), (63, 129), (64, 128), (1, 200), (7, 7)] {
      var bitmap = Bitmap(count: 200)
      #expect(bitmap.isClear(low..<high))
      bitmap.set(low..<high)
      #expect((0..<200).filter { bitmap[$0] } == Array(low..<high))
      #expect(bitmap.isClear(0..<low) && bitmap.isClear(high..<200) && bitmap.isClear(200..<900))
      for index in low..<high {
        #expect(!bitmap.isClear(index..<index + 1) && !bitmap.isClear(0..<index + 1))
        #expect(!bitmap.isClear(index..<300))
      }
    }
  }

  @Test("a bitmap that was cut and grown again has forgotten the bits behind the cut")
  func resizes() {
    var bitmap = Bitmap(count: 100)
    for index in 0..<100 { bitmap[index] = true }
    bitmap.resize(to: 70)
    #expect(bitmap.setCount == 70)
    bitmap.resize(to: 200)
    #expect(bitmap.setCount == 70)
    #expect(bitmap.firstClear(from: 0) == 70)
    bitmap.resize(to: 0)
    #expect(bitmap.lastSet == nil)
    #expect(bitmap.firstClear(from: 0) == nil)
  }

  @Test("random changes agree with an array of booleans", arguments: 1...4 as ClosedRange<UInt64>)
  func model(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var bitmap = Bitmap(count: 0)
    var model: [Bool] = []
    for _ in 0..<400 {
      if model.isEmpty || Int.random(in: 0..<20, using: &random) == 0 {
        let count = Int.random(in: 0...200, using: &random)
        bitmap.resize(to: count)
        model = Array(model.prefix(count))
        model += repeatElement(false, count: count - model.count)
      } else {
        let index = Int.random(in: 0..<model.count, using: &random)
        let value = Bool.random(using: &random)
        bitmap[index] = value
        model[index] = value
      }
      let start = Int.random(in: 0...200, using: &random)
      #expect(bitmap.count == model.count, "seed \(seed)")
      #expect(bitmap.setCount == model.count { $0 }, "seed \(seed)")
      #expect(bitmap.lastSet == model.lastIndex(of: true), "seed \(seed)")
      #expect(
        bitmap.firstClear(from: start) == model.indices.first { $0 >= start && !model[$0] },
        "seed \(seed)")
    }
  }
}
