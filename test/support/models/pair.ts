/**
 * An HTTP listener and its model, side by side: whatever happens happens to both, and then they have to agree.
 */
import { assert } from "@effect/vitest"
import { keep } from "../../../src/internal/gate.ts"
import { type FakeLine, FakeListener } from "./fakes.ts"
import { type Line, RegistryModel, type Timing } from "./registry.ts"
import type { World } from "./world.ts"

/** A step of time. What is due comes in between. */
const step = 70.3

/** As much a sweep may be late each time that it looks: its grain, and what a timer is rounded by. */
const late = 6

export type Kind =
  | "accept"
  | "bytes"
  | "request"
  | "upload"
  | "received"
  | "headers"
  | "respond"
  | "upgrade"
  | "handle"
  | "handled"
  | "take"
  | "leave"
  | "count"
  | "call"
  | "reply"
  | "hangUp"
  | "lameDuck"
  | "drain"
  | "force"

export class Registry {
  private readonly world: World
  private readonly model: RegistryModel
  private readonly real: FakeListener
  private readonly fakes = new Map<Line, FakeLine>()
  /** It has been, in the drain. */
  private wasEmpty = false
  /** What is on its way. */
  private wire: Array<() => void> = []

  constructor(world: World, timing: Timing) {
    this.world = world
    this.model = new RegistryModel(timing)
    this.real = new FakeListener(world, timing)
    world.poll = () => {
      for (const arrive of this.wire.splice(0)) arrive()
    }
  }

  play(kind: Kind, which: number, slow: boolean, steps: number): void {
    this.event(kind, which, slow)
    this.pass(steps)
  }

  private pass(steps: number): void {
    this.world.settle()
    this.world.pass(steps * step)
    this.world.poll()
    this.world.settle()
    this.model.pass(this.world.now)
    this.compare()
  }

  private event(kind: Kind, which: number, slow: boolean): void {
    const { model, real } = this
    const { now } = this.world
    const { state } = model
    if (kind === "accept") {
      if (state === "forced") return
      return void this.fakes.set(model.accept(now), real.accept())
    }
    if (kind === "lameDuck") {
      model.lameDuck()
      return real.listener.lameDuck()
    }
    if (kind === "drain") {
      if (state === "draining" || state === "forced") return
      model.drain(now)
      return real.begin()
    }
    if (kind === "force") {
      if (state !== "draining") return
      model.force()
      return real.force()
    }
    const line = this.choose(kind, which)
    if (line === undefined) return
    const fake = this.fakes.get(line)!
    this.onLine(kind, line, fake, slow, now)
  }

  /** One of the connections that this may happen to. */
  private choose(kind: Kind, which: number): Line | undefined {
    const able = this.model.lines.filter((line) => {
      const { exchanges, handling, isHijacked, isOpen } = line
      switch (kind) {
        case "bytes":
        case "hangUp":
          return isOpen
        case "request":
        case "upload":
          // What comes behind a response that says close is dropped.
          return (
            isOpen && !isHijacked && exchanges.every(({ says, whole }) => whole && says !== "close") && !line.isOver
          )
        case "received":
          return isOpen && exchanges.at(-1)?.whole === false
        case "headers":
          return isOpen && exchanges.some(({ says }) => says === "nothing yet")
        case "respond":
          return isOpen && exchanges[0]?.whole === true
        case "upgrade":
          return isOpen && !isHijacked && exchanges.length === 0 && !line.isOver
        case "handle":
          return isOpen && isHijacked && handling === undefined
        case "handled":
        case "take":
        case "count":
          return handling !== undefined
        case "leave":
          return handling !== undefined && handling.busy > 0
        case "call":
          return handling?.calls !== undefined
        case "reply":
          return handling?.calls !== undefined && handling.calls > 0
        default:
          return false
      }
    })
    return able.length === 0 ? undefined : able[which % able.length]
  }

  private onLine(kind: Kind, line: Line, fake: FakeLine, slow: boolean, now: number): void {
    const { model, real } = this
    const arrives = (f: () => void) => {
      if (slow) this.wire.push(f)
      else f()
    }
    switch (kind) {
      case "bytes":
        model.bytes(line)
        return arrives(() => real.bytes(fake))
      case "request":
      case "upload": {
        const whole = kind === "request"
        model.request(line, whole)
        return arrives(() => real.request(fake, whole))
      }
      case "received":
        line.exchanges.at(-1)!.whole = true
        return real.received(fake)
      case "headers":
        return this.headers(line, fake)
      case "respond":
        if (line.exchanges[0]!.says === "nothing yet") this.headers(line, fake, 0)
        line.isOver = line.exchanges[0]!.says === "close"
        model.respond(line, now, slow)
        return real.respond(fake, slow)
      case "upgrade":
        model.bytes(line)
        model.upgrade(line, now)
        return real.upgrade(fake)
      case "handle":
        fake.interrupted = false
        model.handle(line, now)
        return real.handle(fake)
      case "handled":
        for (const release of fake.releases.splice(0)) release()
        model.handled(line, now)
        return real.handled(fake)
      case "take":
        model.busy(line.handling!, 1)
        return void fake.releases.push(keep(fake.handler))
      case "leave":
        model.busy(line.handling!, -1)
        return fake.releases.pop()!()
      case "count":
        model.count(line, now)
        return fake.handler!.count()
      case "call":
        model.call(line)
        return fake.handler!.engage()
      case "reply":
        model.reply(line, now)
        return fake.handler!.settle()
      case "hangUp":
        model.hangUp(line)
        return real.hangUp(fake)
    }
  }

  private headers(line: Line, fake: FakeLine, index = line.exchanges.findIndex(({ says }) => says === "nothing yet")) {
    const exchange = line.exchanges[index]!
    const response = fake.responses[index]!
    this.model.headers(line, exchange)
    response.writeHead()
    same(response.says, exchange.says, "what the head says of the connection")
  }

  private compare(): void {
    const { model, real } = this
    const { listener } = real
    same(listener.accepted(), model.accepted, "accepted")
    same(listener.connections(), model.open.length, "connections")
    const handlers = model.lines.filter(({ handling }) => handling !== undefined).length
    same(listener.inFlight(), Math.max(model.inFlight, handlers), "in flight")
    const { cut, drained } = listener.counts()
    same(drained, model.drained, "drained")
    same(cut, model.cut, "cut")
    const isDraining = model.state === "draining" || model.state === "forced"
    same(listener.isEmpty(), model.open.length === 0 && handlers === 0, "empty")
    this.wasEmpty ||= isDraining && listener.isEmpty()
    same(real.doneAt !== undefined, this.wasEmpty, "whoever waits is told when it is")
    const isWaiting = model.open.some(({ due }) => due < Number.POSITIVE_INFINITY)
    if (!isWaiting) same(this.world.isBusy, false, "with nothing due nothing keeps the process alive")
    for (const line of model.lines) {
      const { handler, interrupted, socket } = this.fakes.get(line)!
      same(socket.destroyed, !line.isOpen, "closed")
      same(handler?.isEnding, line.handling?.isEnding, "told")
      if (line.handling !== undefined) same(interrupted, line.handling.interrupted, "interrupted")
      const { closed } = line
      if (closed === undefined) continue
      const after = socket.closedAt! - closed.at
      if (after < 0 || after > closed.looks * late) assert.fail(`closed ${after} ms after it was due`)
    }
  }

  /** Everything ends that is in flight, and in the drain nothing is left then. */
  finish(): void {
    const { model } = this
    this.play("drain", 0, false, 1)
    for (const line of model.lines) {
      if (line.isOpen && line.exchanges.at(-1)?.whole === false) this.onOne("received", line)
      while (line.isOpen && line.exchanges.length > 0) this.onOne("respond", line)
      for (let { calls } = line.handling ?? {}; calls !== undefined && calls > 0; calls--) this.onOne("reply", line)
      if (line.handling !== undefined) this.onOne("handled", line)
    }
    this.pass(40)
    same(model.open.length, 0, "nothing is left")
    same(this.real.listener.isEmpty(), true, "nothing is left")
    same(this.world.isBusy, false, "nothing keeps the process alive")
    same(this.real.server.closes > 0, true, "the server has been let go")
  }

  private onOne(kind: Kind, line: Line): void {
    this.onLine(kind, line, this.fakes.get(line)!, false, this.world.now)
    this.pass(1)
  }
}

const same = <A>(actual: A, expected: A, message: string): void => {
  if (!Object.is(actual, expected)) assert.strictEqual(actual, expected, message)
}
