/**
 * A terminal, with one line at its bottom that is written anew again and again. Whatever else is written to it meanwhile,
 * by whoever it may be, appears above that line.
 */

export interface Terminal {
  readonly columns: () => number
  readonly colors: boolean
  /** Whether logs appear on it. */
  readonly logs: boolean
  /** Puts `line` in the place of the one that was there. */
  readonly show: (line: string) => void
  /** Takes the line away. */
  readonly clear: () => void
  /** Writes text that stays. */
  readonly write: (text: string) => void
}

/** What is used of a process. */
export interface Streams {
  readonly stdout: Stream
  readonly stderr: Stream
  readonly env: NodeJS.ProcessEnv
  once(event: "exit", listener: () => void): unknown
  off(event: "exit", listener: () => void): unknown
}

export interface Stream {
  readonly isTTY?: boolean | undefined
  readonly columns?: number | undefined
  write: (...args: ReadonlyArray<never>) => boolean
  on(event: "error", listener: () => void): unknown
}

/** Back to the first column, and nothing to the right of it. */
const erase = "\r\u001B[K"

export const of = (process: Streams): Terminal => new Screen(process)

class Screen implements Terminal {
  readonly colors: boolean
  readonly logs: boolean
  private readonly process: Streams
  private readonly streams: ReadonlyArray<Stream>
  private readonly raw: Stream["write"]
  private line: string | undefined
  /** What somebody else has written has not come to the end of its line. */
  private isUnfinished = false
  private isGone = false
  private isHeard = false
  private restore: (() => void) | undefined

  constructor(process: Streams) {
    const { env, stderr, stdout } = process
    this.process = process
    this.streams = [stdout, stderr].filter(({ isTTY }) => isTTY)
    this.raw = stderr.write
    this.colors = env["NO_COLOR"] === undefined || env["NO_COLOR"] === ""
    this.logs = stdout.isTTY === true
  }

  // Some terminals say that they have none.
  readonly columns = (): number => this.process.stderr.columns || 80

  readonly show = (line: string): void => {
    this.restore ??= this.intercept()
    this.line = line
    this.draw()
  }

  readonly clear = (): void => {
    if (this.restore === undefined) return
    this.restore()
    this.restore = undefined
    this.line = undefined
    if (!this.isUnfinished) this.send(erase)
  }

  readonly write = (text: string): void => {
    this.clear()
    this.send(this.isUnfinished ? `\n${text}` : text)
  }

  private draw(): void {
    // In the middle of a line nothing can be put beneath it.
    if (this.line !== undefined && !this.isUnfinished) this.send(`${erase}${this.line}`)
  }

  private send(text: string): void {
    this.hear()
    if (!this.isGone) Reflect.apply(this.raw, this.process.stderr, [text])
  }

  /** A terminal that has been closed fails to write, and an error that nobody listens for is an uncaught one. */
  private hear(): void {
    if (this.isHeard) return
    this.isHeard = true
    for (const stream of this.streams) stream.on("error", () => this.lose())
  }

  private lose(): void {
    this.isGone = true
    this.restore?.()
    this.restore = undefined
  }

  /** Not for longer than there is a line: other code may have reasons of its own to replace `write`. */
  private intercept(): () => void {
    const restorations = this.streams.map((stream) => {
      const original = stream.write
      const replacement: Stream["write"] = (...args) => {
        // Whoever has put something over this one goes on calling it.
        if (this.restore === undefined) return Reflect.apply(original, stream, args)
        if (!this.isUnfinished) this.send(erase)
        const written = Reflect.apply(original, stream, args)
        this.isUnfinished = isUnfinished(args[0], this.isUnfinished)
        this.draw()
        return written
      }
      stream.write = replacement
      return () => {
        if (stream.write === replacement) stream.write = original
      }
    })
    // A second signal ends the process, and leaves the prompt of the shell where the line was.
    this.process.once("exit", this.clear)
    return () => {
      this.process.off("exit", this.clear)
      for (const restore of restorations) restore()
    }
  }
}

const newline = 10

/** Whether a line is unfinished after `chunk`; `before` is whether it was. */
const isUnfinished = (chunk: unknown, before: boolean): boolean => {
  if (typeof chunk === "string") return chunk === "" ? before : !chunk.endsWith("\n")
  return chunk instanceof Uint8Array && chunk.length > 0 ? chunk.at(-1) !== newline : before
}
