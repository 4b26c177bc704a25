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
}

export interface Stream {
  readonly isTTY?: boolean | undefined
  readonly columns?: number | undefined
  write: (...args: ReadonlyArray<never>) => boolean
}

/** Back to the first column, and nothing to the right of it. */
const erase = "\r\u001B[K"

export const of = ({ env, stderr, stdout }: Streams): Terminal => {
  let line = ""
  let restore: (() => void) | undefined
  const raw = stderr.write as unknown as (this: Stream, text: string) => boolean
  const write = (text: string): void => void raw.call(stderr, text)
  // Not for longer than there is a line: other code may have reasons of its own to replace `write`.
  const intercept = () => {
    const streams = [stdout, stderr].filter(({ isTTY }) => isTTY)
    const originals = streams.map(({ write }) => write)
    const replacements = streams.map((stream, index) => {
      const replacement: Stream["write"] = (...args) => {
        write(erase)
        const written = Reflect.apply(originals[index]!, stream, args) as boolean
        // In the middle of a line nothing can be put beneath it.
        if (String(args[0]).endsWith("\n")) write(line)
        return written
      }
      stream.write = replacement
      return replacement
    })
    return () => {
      streams.forEach((stream, index) => {
        if (stream.write === replacements[index]) stream.write = originals[index]!
      })
    }
  }
  const clear = () => {
    if (restore === undefined) return
    restore()
    restore = undefined
    line = ""
    write(erase)
  }
  return {
    columns: () => stderr.columns ?? 80,
    colors: env["NO_COLOR"] === undefined || env["NO_COLOR"] === "",
    logs: stdout.isTTY === true,
    show: (next) => {
      restore ??= intercept()
      line = next
      write(`${erase}${line}`)
    },
    clear,
    write: (text) => {
      clear()
      write(text)
    }
  }
}
