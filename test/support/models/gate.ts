/**
 * The busy gate of a shutdown, in words: a list of everything that has ever been work, and what follows from it.
 *
 * Work is a section or a listener. Late is a section that began when every listener had been drained already.
 */

/** A listener, or a section. */
export interface Work {
  readonly kind: "listener" | "section"
  readonly parent: Work | undefined
  readonly late: boolean
  live: boolean
  /** Of a listener: nothing is in flight on it, whoever is still connected. */
  quiet: boolean
}

export class GateModel {
  readonly works: Array<Work> = []
  draining = false
  closed = false
  cut = false
  /** Something has ended that may have handed work on, and the event loop has not turned since. */
  fresh = false
  /** A turn is being waited for, because nothing was left. */
  turning = false

  private some(kind: Work["kind"]): boolean {
    return this.works.some((work) => work.kind === kind && work.live)
  }

  /** Every section that has begun. */
  get begun(): ReadonlyArray<Work> {
    return this.works.filter(({ kind }) => kind === "section")
  }

  /** Those that are live. */
  get sections(): ReadonlyArray<Work> {
    return this.begun.filter(({ live }) => live)
  }

  /** Listeners that have not been drained. */
  get listeners(): ReadonlyArray<Work> {
    return this.works.filter(({ kind, live }) => kind === "listener" && live)
  }

  /** Whether nothing is left. */
  private get isIdle(): boolean {
    return !this.works.some(({ live }) => live)
  }

  /** Whether nothing is left but connections with nothing in flight. */
  private get isQuiet(): boolean {
    return !this.works.some(({ live, quiet }) => live && !quiet)
  }

  isNested(work: Work | undefined): boolean {
    return work !== undefined && (work.live || this.isNested(work.parent))
  }

  /** Whether a section may begin. */
  admits(park: boolean, parent: Work | undefined): boolean {
    if (!this.draining) return true
    if (this.closed) return false
    if (this.isNested(parent)) return true
    if (park) return false
    const mayHandOver = this.works.some(({ late, live }) => live && !late)
    return mayHandOver || this.turning
  }

  enter(parent: Work | undefined): Work {
    const late = this.draining && !this.some("listener")
    const work: Work = { kind: "section", parent, late, live: true, quiet: false }
    this.works.push(work)
    return work
  }

  listen(): Work {
    const work: Work = { kind: "listener", parent: undefined, late: false, live: true, quiet: false }
    this.works.push(work)
    return work
  }

  end(work: Work): void {
    if (!work.live) return
    work.live = false
    // The end of a connection that was quiet hands nothing on.
    if (this.draining && !work.late && !work.quiet) this.fresh = true
    this.look()
  }

  /** The last that was in flight on a listener has ended. */
  quieten(listener: Work): void {
    listener.quiet = true
    if (this.draining) this.fresh = true
    this.look()
  }

  /** Something has come in flight on it. */
  stir(listener: Work): void {
    listener.quiet = false
  }

  drain(): void {
    this.draining = true
    // The beginning itself is followed by a turn.
    this.fresh = true
    this.look()
  }

  /** Where nothing is in flight it looks again a turn later, unless nothing can have been handed on. */
  private look(): void {
    if (!this.draining || this.closed || this.turning || !this.isQuiet) return
    if (this.fresh) this.turning = true
    else if (this.isIdle) this.closed = true
    this.fresh = false
  }

  /** The event loop has turned. */
  turned(): void {
    if (!this.turning) return
    this.turning = false
    this.look()
  }

  force(): void {
    this.draining = true
    this.closed = true
    this.cut = true
  }
}
