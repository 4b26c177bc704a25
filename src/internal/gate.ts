/**
 * The busy gate: counts the sections of work that a shutdown must not cut short, and says who may still begin one.
 *
 * Before the drain everyone may. During it a section is admitted when it is nested in a live one, or while there is work
 * that may have handed it on: a listener that has not been drained, an early section (one that began before every listener
 * had been), or one of these that has ended within this turn of the event loop. A section that parks is admitted only
 * when it is nested. Once nothing is left the gate closes, for good: deciding that and closing are one step, so nothing
 * can slip in between.
 */
import * as Context from "effect/Context"
import type * as Fiber from "effect/Fiber"

/** One section of work. It outlives its end as a record, since a fiber may carry it in its context for ever. */
export interface Section {
  readonly name: string
  readonly since: number
  /** Begun before every listener had been drained. */
  readonly early: boolean
  /** The section it is nested in. */
  readonly parent: Section | undefined
  live: boolean
  /** The fiber that runs it, where one does. */
  readonly fiber: Fiber.Fiber<unknown, unknown> | undefined
  /** Lets go of the connection handler it runs in. */
  readonly release: () => void
}

/** What a connection handler is told about the sections inside it: it may be interrupted only while there are none. */
export interface Hold {
  busy: number
  /** Called each time the last section inside has ended. */
  onIdle(): void
}

/** Keeps a handler from being interrupted. Returns the end of that. */
export const keep = (hold: Hold | undefined): (() => void) => {
  if (hold !== undefined) hold.busy++
  return () => {
    if (hold !== undefined && --hold.busy === 0) hold.onIdle()
  }
}

/** The innermost section of a fiber. It may have ended. */
export const CurrentSection: Context.Reference<Section | undefined> = Context.Reference<Section | undefined>(
  "effect-kms/CurrentSection",
  { defaultValue: () => undefined }
)

/** The connection handler a fiber belongs to. */
export const CurrentHold: Context.Reference<Hold | undefined> = Context.Reference<Hold | undefined>(
  "effect-kms/CurrentHold",
  { defaultValue: () => undefined }
)

/**
 * A request on a listener that drains with its own scope. It works on when the gate has closed, and its listener waits for
 * it.
 */
export interface Released {
  live: boolean
}

export const CurrentReleased: Context.Reference<Released | undefined> = Context.Reference<Released | undefined>(
  "effect-kms/CurrentReleased",
  { defaultValue: () => undefined }
)

export interface Entry {
  readonly name: string
  readonly now: number
  readonly park: boolean
  readonly parent?: Section | undefined
  readonly fiber?: Fiber.Fiber<unknown, unknown> | undefined
  readonly hold?: Hold | undefined
}

export class Gate {
  readonly live = new Set<Section>()
  private early = 0
  private draining = false
  private closed = false
  private readonly listening: () => boolean
  private readonly settling: () => boolean
  private readonly onLeave: (section: Section) => void

  /**
   * `listening` tells whether a listener has not been drained yet, `settling` whether something has ended in this turn;
   * `onLeave` is called after a section has ended, once the drain has begun.
   */
  constructor(listening: () => boolean, settling: () => boolean, onLeave: (section: Section) => void) {
    this.listening = listening
    this.settling = settling
    this.onLeave = onLeave
  }

  /** Begins a section, or gives `undefined` where it has to wait for the end. */
  enter(entry: Entry): Section | undefined {
    if (!this.admits(entry)) return undefined
    const { fiber, hold, name, now: since, parent } = entry
    const section: Section = {
      name,
      since,
      early: !this.draining || this.listening(),
      live: true,
      fiber,
      release: keep(hold),
      parent
    }
    this.live.add(section)
    if (section.early) this.early++
    return section
  }

  private admits(entry: Entry): boolean {
    if (!this.draining) return true
    if (this.closed) return false
    for (let outer = entry.parent; outer !== undefined; outer = outer.parent) if (outer.live) return true
    return !entry.park && (this.early > 0 || this.listening() || this.settling())
  }

  leave(section: Section): void {
    if (!section.live) return
    section.live = false
    this.live.delete(section)
    if (section.early) this.early--
    section.release()
    if (this.draining) this.onLeave(section)
  }

  drain(): void {
    this.draining = true
  }

  /** Closes the gate if no section is live; says whether it is closed. */
  closeIfEmpty(): boolean {
    if (this.draining && this.live.size === 0) this.closed = true
    return this.closed
  }

  /** Closes the gate whatever is live. */
  close(): void {
    this.draining = true
    this.closed = true
  }
}
