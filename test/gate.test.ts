import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { Gate, type Hold, type Section } from "../src/internal/gate.ts"

const make = () => {
  const state = { listening: false, settling: false, left: new Array<boolean>() }
  const gate = new Gate(
    () => state.listening,
    () => state.settling,
    ({ early }) => void state.left.push(early)
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

  it("admits new work during the drain while a listener has not been drained, and counts it as early", () => {
    const { enter, gate, state } = make()
    gate.drain()
    state.listening = true
    const section = enter()!
    assert.isTrue(section.early)
    assert.isUndefined(enter({ park: true }))
    state.listening = false
    assert.isDefined(enter(), "what it waits for may begin")
    gate.leave(section)
    assert.isUndefined(enter())
  })

  it("admits new work in the turn in which the last has ended, and counts it as late", () => {
    const { enter, gate, state } = make()
    gate.drain()
    state.settling = true
    const section = enter()!
    assert.isFalse(section.early)
    state.settling = false
    assert.isUndefined(enter(), "a late section admits no others")
    gate.leave(section)
    assert.deepStrictEqual(state.left, [false])
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
    assert.deepStrictEqual(state.left, [true])
    assert.isTrue(gate.closeIfEmpty())
    state.listening = state.settling = true
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
      fc.record({ do: fc.constant("world" as const), listening: fc.boolean(), settling: fc.boolean() }),
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
            const admitted =
              !draining ||
              (!closed && (isNested(parent) || (!event.park && (early || state.listening || state.settling))))
            const section = enter({ park: event.park, parent: parent?.section })
            assert.strictEqual(section !== undefined, admitted)
            if (section !== undefined) known.push({ section, live: true, early: !draining || state.listening, parent })
          } else if (event.do === "leave") {
            const it = at(event.which)
            if (it !== undefined) {
              gate.leave(it.section)
              it.live = false
            }
          } else if (event.do === "world") {
            state.listening = event.listening
            state.settling = event.settling
          } else if (event.do === "drain") {
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
