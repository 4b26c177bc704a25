import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { Gate, type Hold, type Section } from "../src/internal/gate.ts"

const make = () => {
  const state = { inFlight: false, left: 0 }
  const gate = new Gate(
    () => state.inFlight,
    () => void state.left++
  )
  const enter = (
    options: { readonly park?: boolean; readonly parent?: Section | undefined; readonly hold?: Hold } = {}
  ) => gate.enter({ name: "work", now: 0, park: false, ...options })
  return { gate, state, enter }
}

describe("gate", () => {
  it("admits everyone before the drain", () => {
    const { enter } = make()
    assert.isDefined(enter())
    assert.isDefined(enter({ park: true }))
  })

  it("admits nobody new during the drain when nothing is in flight", () => {
    const { enter, gate } = make()
    gate.drain()
    assert.isUndefined(enter())
  })

  it("admits new work during the drain while a request is in flight", () => {
    const { enter, gate, state } = make()
    gate.drain()
    state.inFlight = true
    assert.isDefined(enter())
    assert.isUndefined(enter({ park: true }))
  })

  it("admits new work during the drain while a section begun before it is live", () => {
    const { enter, gate } = make()
    const before = enter()!
    gate.drain()
    const during = enter()
    assert.isDefined(during)
    gate.leave(before)
    assert.isUndefined(enter(), "a section admitted during the drain admits no others")
  })

  it("admits what is nested in a live section, also when it parks", () => {
    const { enter, gate } = make()
    const parent = enter()!
    gate.drain()
    const child = enter({ park: true, parent })!
    gate.leave(parent)
    assert.isDefined(enter({ park: true, parent: child }))
    assert.isUndefined(enter({ park: true, parent }), "the parent has ended, though a fiber may still carry it")
  })

  it("closes for good in the same step in which it is found empty", () => {
    const { enter, gate, state } = make()
    const section = enter()!
    gate.drain()
    assert.isFalse(gate.closeIfEmpty())
    gate.leave(section)
    assert.strictEqual(state.left, 1)
    assert.isTrue(gate.closeIfEmpty())
    state.inFlight = true
    assert.isUndefined(enter())
    assert.isUndefined(enter({ parent: section }))
  })

  it("does not close before the drain", () => {
    const { enter, gate } = make()
    assert.isFalse(gate.closeIfEmpty())
    assert.isDefined(enter())
  })

  it("counts a section out once, however often it is left", () => {
    const { enter, gate } = make()
    const one = enter()!
    const two = enter()!
    gate.leave(one)
    gate.leave(one)
    assert.deepStrictEqual(Array.from(gate.live), [two])
  })

  it("tells the connection handler that holds it when its last section has ended", () => {
    const { enter, gate } = make()
    let idle = 0
    const hold: Hold = { busy: 0, onIdle: () => void idle++ }
    const sections = [enter({ hold })!, enter({ hold })!]
    assert.strictEqual(hold.busy, 2)
    gate.leave(sections[0]!)
    assert.strictEqual(idle, 0)
    gate.leave(sections[1]!)
    assert.strictEqual(idle, 1)
  })

  it("agrees with a naive model under random sequences of events", () => {
    const event = fc.oneof(
      fc.record({ do: fc.constant("enter" as const), park: fc.boolean(), parent: fc.option(fc.nat(9)) }),
      fc.record({ do: fc.constant("leave" as const), which: fc.nat(9) }),
      fc.record({ do: fc.constant("flight" as const), inFlight: fc.boolean() }),
      fc.record({ do: fc.constantFrom("drain" as const, "closeIfEmpty" as const, "close" as const) })
    )
    fc.assert(
      fc.property(fc.array(event, { maxLength: 40 }), (events) => {
        const { enter, gate, state } = make()
        interface Known {
          readonly section: Section
          readonly early: boolean
          readonly parent: Known | undefined
          live: boolean
        }
        const known: Array<Known> = []
        const isNested = (parent: Known | undefined): boolean =>
          parent !== undefined && (parent.live || isNested(parent.parent))
        const at = (i: number | null) => (i === null || known.length === 0 ? undefined : known[i % known.length])
        let draining = false
        let closed = false
        for (const event of events) {
          if (event.do === "enter") {
            const parent = at(event.parent)
            const early = known.some((it) => it.live && it.early)
            const admitted = !draining || (!closed && (isNested(parent) || (!event.park && (early || state.inFlight))))
            const section = enter({ park: event.park, parent: parent?.section })
            assert.strictEqual(section !== undefined, admitted)
            if (section !== undefined) known.push({ section, live: true, early: !draining, parent })
          } else if (event.do === "leave") {
            const it = at(event.which)
            if (it !== undefined) {
              gate.leave(it.section)
              it.live = false
            }
          } else if (event.do === "flight") state.inFlight = event.inFlight
          else if (event.do === "drain") {
            gate.drain()
            draining = true
          } else if (event.do === "close") {
            gate.close()
            draining = closed = true
          } else {
            closed ||= draining && known.every((it) => !it.live)
            assert.strictEqual(gate.closeIfEmpty(), closed)
          }
          assert.strictEqual(gate.live.size, known.filter((it) => it.live).length)
        }
      }),
      { numRuns: 5000 }
    )
  })
})
