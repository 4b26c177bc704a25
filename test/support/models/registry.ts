/**
 * The connections of one HTTP listener, reckoned one by one: what is known of each, when it is to close, and why. Times are
 * those at which the drain may first do something; it may be late by the grain of its sweep each time that it looks.
 */

export interface Timing {
  readonly quietPeriod: number
  readonly closeTimeout: number
}

/** Longer than any answer to `Connection: close` takes Node. */
const backstop = 1000

/** A request, and whether the head of its response says that the connection goes on, once that is out. */
export interface Exchange {
  says: "nothing yet" | "keep-alive" | "close"
  /** All of it has come. */
  whole: boolean
}

/** Whoever handles an upgraded connection. */
export interface Handling {
  isEnding: boolean
  interrupted: boolean
  /** Busy sections inside it. */
  busy: number
  /** Calls in flight, where they are counted. */
  calls: number | undefined
  /** It is to be interrupted as soon as no section is left. */
  isLeaving: boolean
}

export class Line {
  readonly exchanges: Array<Exchange> = []
  isOpen = true
  /** Its last response has said so. */
  isOver = false
  isHijacked = false
  handling: Handling | undefined
  /** Since when nothing is in flight. */
  quietSince: number
  /** Its peer has begun something since. */
  hasBegun = false
  /** That has been given its time. */
  wasGranted = false
  /** When the drain looks at it next. */
  due = Number.POSITIVE_INFINITY
  /** How often it has been looked at on the way there: each time may be late. */
  looks = 1
  closed: { readonly at: number; readonly looks: number } | undefined

  constructor(now: number) {
    this.quietSince = now
  }

  /** How much is in flight. */
  get inFlight(): number {
    return this.isHijacked ? 1 : this.exchanges.length
  }
}

export class RegistryModel {
  readonly lines: Array<Line> = []
  state: "open" | "leaving" | "draining" | "forced" = "open"
  accepted = 0
  drained = 0
  cut = 0
  private readonly timing: Timing

  constructor(timing: Timing) {
    this.timing = timing
  }

  get open(): ReadonlyArray<Line> {
    return this.lines.filter(({ isOpen }) => isOpen)
  }

  get inFlight(): number {
    return this.open.reduce((sum, { inFlight }) => sum + inFlight, 0)
  }

  // --- What peers do ---

  accept(now: number): Line {
    const line = new Line(now)
    this.accepted++
    this.lines.push(line)
    if (this.state === "draining") this.letGo(line, now)
    return line
  }

  bytes(line: Line): void {
    line.hasBegun = true
  }

  request(line: Line, whole: boolean): void {
    line.due = Number.POSITIVE_INFINITY
    line.exchanges.push({ says: "nothing yet", whole })
  }

  /** Its peer has gone. */
  hangUp(line: Line): void {
    this.gone(line)
    if (this.state === "draining" && line.isHijacked) this.drained++
  }

  private gone(line: Line): void {
    line.isOpen = false
    // No call comes any more to a handler that was to wait for that.
    const { handling } = line
    if (handling?.isEnding === true && handling.calls === 0) this.leave(handling)
  }

  // --- What applications do ---

  /** Once told to leave, the newest response of a connection says close, and only that; none while its request comes in. */
  headers(line: Line, exchange: Exchange): void {
    const isNewest = line.exchanges.at(-1) === exchange
    exchange.says = this.state !== "open" && isNewest && exchange.whole ? "close" : "keep-alive"
  }

  /** The oldest response has ended. Node closes after one that said so, unless it is `slow` to. */
  respond(line: Line, now: number, slow: boolean): void {
    const { says } = line.exchanges.shift()!
    if (this.state === "draining") this.drained++
    if (line.exchanges.length === 0) this.rest(line, now)
    if (says === "close" && !slow) {
      line.isOpen = false
      return
    }
    if (this.state !== "draining" || line.exchanges.length > 0) return
    if (says === "close") line.due = now + backstop
    else this.letGo(line, now)
  }

  private rest(line: Line, now: number): void {
    line.quietSince = now
    line.hasBegun = false
  }

  upgrade(line: Line, now: number): void {
    line.isHijacked = true
    line.due = Number.POSITIVE_INFINITY
    if (this.state === "draining") this.letGo(line, now)
  }

  handle(line: Line, now: number): void {
    line.due = Number.POSITIVE_INFINITY
    line.handling = { isEnding: false, interrupted: false, busy: 0, calls: undefined, isLeaving: false }
    if (this.state === "draining") this.end(line, now)
  }

  /** The handler has ended by itself, or after its interruption. */
  handled(line: Line, now: number): void {
    const isTold = line.handling!.isEnding || this.state === "draining"
    line.handling = undefined
    if (isTold && line.isOpen) line.due = now + this.timing.closeTimeout
  }

  busy(handling: Handling, by: 1 | -1): void {
    handling.busy += by
    if (by < 0) this.mayInterrupt(handling)
  }

  /** Calls are counted from now on: they are what is in flight. */
  count(line: Line, now: number): void {
    const { handling } = line
    if (handling!.calls !== undefined) return
    handling!.calls = 0
    handling!.isLeaving = false
    this.rest(line, now)
    if (handling!.isEnding) this.quieten(line, now)
  }

  call(line: Line): void {
    line.handling!.calls!++
    line.due = Number.POSITIVE_INFINITY
  }

  reply(line: Line, now: number): void {
    line.handling!.calls!--
    if (line.handling!.calls! > 0) return
    this.rest(line, now)
    if (line.handling!.isEnding) this.quieten(line, now)
  }

  // --- The drain ---

  lameDuck(): void {
    if (this.state === "open") this.state = "leaving"
  }

  drain(now: number): void {
    this.state = "draining"
    // A handler may go on when its connection has gone, and is told all the same.
    for (const line of this.lines) if (line.isOpen || line.handling !== undefined) this.letGo(line, now)
  }

  force(): void {
    this.state = "forced"
    for (const line of this.open) {
      this.cut += line.inFlight
      this.gone(line)
    }
  }

  private letGo(line: Line, now: number): void {
    if (line.handling !== undefined) this.end(line, now)
    else if (line.isHijacked) line.due = now + this.timing.closeTimeout
    else if (line.exchanges.length === 0) this.quieten(line, now)
  }

  private end(line: Line, now: number): void {
    const { handling } = line
    if (handling!.isEnding) return
    handling!.isEnding = true
    if (handling!.calls === undefined) this.leave(handling!)
    else if (handling!.calls === 0) this.quieten(line, now)
  }

  private leave(handling: Handling): void {
    handling.isLeaving = true
    this.mayInterrupt(handling)
  }

  private mayInterrupt(handling: Handling): void {
    if (handling.isLeaving && handling.busy === 0) handling.interrupted = true
  }

  /** It goes once quiet for long enough; what its peer has begun is given its time first, but only once. */
  private quieten(line: Line, now: number): void {
    if (!line.isOpen) {
      if (line.handling !== undefined) this.leave(line.handling)
      return
    }
    line.looks = 1
    if (line.hasBegun && !line.wasGranted) {
      line.wasGranted = true
      line.due = now + this.timing.closeTimeout
    } else line.due = Math.max(now, line.quietSince + this.timing.quietPeriod)
  }

  /** The clock has come as far as `until`. */
  pass(until: number): void {
    for (const line of this.open) {
      while (line.isOpen && line.due <= until) this.look(line, line.due)
    }
  }

  private look(line: Line, at: number): void {
    line.due = Number.POSITIVE_INFINITY
    const { handling, looks } = line
    if (handling !== undefined && (handling.calls === undefined || handling.calls > 0)) return
    if ((handling !== undefined || !line.isHijacked) && line.hasBegun && !line.wasGranted) {
      this.quieten(line, at)
      line.looks = looks + 1
    } else if (handling !== undefined) this.leave(handling)
    else {
      line.isOpen = false
      line.closed = { at, looks }
      if (line.isHijacked) this.cut++
    }
  }
}
