/**
 * The file of a Unix-domain socket: how it comes to its path, and how it goes from there.
 *
 * - Only a socket that nobody listens on is replaced. Anything else at the path stays as it is, and is an error.
 * - It is listened on, and has its mode, from the moment at which it is there.
 * - Of any number of processes that want a path one gets it, and stays reachable.
 * - Only the file that was made is removed, not what somebody has put in its place.
 *
 * A socket is never bound at its path. When a server closes, libuv removes the path that it was bound to, whoever the file
 * there belongs to by then; and until it has its mode and listens, peers would find it as it is. So it is bound in a
 * private directory beside the path, and moved from there.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Fs from "node:fs"
import { connect } from "node:net"
import { basename, dirname, join, resolve } from "node:path"
import { OptionError } from "./options.ts"

/** A file in its place. */
export interface SocketFile {
  /**
   * Removes it, if it is still the one that was made. To be called before its server closes: as long as that is open no
   * other file can get its inode number, and no other process takes it for one that nobody listens on.
   */
  readonly remove: () => void
}

/** Makes a server listen at `name`, in this very step. False if it does not, and an event will tell why. */
export type Bind = (name: string) => boolean

/** Puts the file in place. Undefined if `bind` did not bind. Throws what went wrong. */
export type Place = (mode: number | undefined, bind: Bind) => SocketFile | undefined

/** What is wrong, with a code as Node has them. */
export const problem = (code: string, message: string): Error => Object.assign(new Error(message), { code })

/** Something has changed since it was looked at. */
class Again extends Error {
  readonly code = "EAGAIN"
}

/** Milliseconds between two looks, and how often it looks. */
const pause = 20
const looks = 250

/** How often a lock is met before it is taken for one whose owner has died: 3 seconds, where the owner needs one. */
const patience = 150

/** Takes `path` for a server that `listening` tells to listen, by means of `place`. It is run again where others interfere. */
export const make = (
  path: string,
  listening: (place: Place) => Effect.Effect<SocketFile | undefined, unknown>
): Effect.Effect<SocketFile | undefined, unknown> =>
  Effect.suspend(() => {
    const lock = new Lock(path)
    return look(path).pipe(
      Effect.flatMap((seen) => listening((mode, bind) => place(path, seen, lock, mode, bind))),
      Effect.retry({ while: (cause) => cause instanceof Again, schedule: Schedule.spaced(pause), times: looks })
    )
  }).pipe(
    // Other processes are waited for.
    Effect.provideService(Clock.Clock, Clock.Clock.defaultValue())
  )

// --- Looking ---

/**
 * Which file it is. The number of an inode is given to another file when the first is gone and nobody has it open; what
 * that other one does not have is the time at which the first was made.
 */
type Identity = Fs.BigIntStats | undefined

const identify = (path: string): Identity => Fs.lstatSync(path, { bigint: true, throwIfNoEntry: false })

const isSame = (a: Identity, b: Identity): boolean =>
  a?.dev === b?.dev && a?.ino === b?.ino && a?.mtimeNs === b?.mtimeNs

/** The socket at `path` that nobody listens on, or undefined if nothing is there. Fails if there is anything else. */
const look = (path: string): Effect.Effect<Identity, unknown> =>
  Effect.try(() => identify(path)).pipe(
    Effect.mapError(({ cause }) => cause),
    Effect.flatMap((found) => {
      if (found === undefined) return Effect.undefined
      return found.isSocket() ? Effect.as(refuses(path), found) : Effect.fail(problem("ENOTSOCK", "not a socket"))
    })
  )

/** Succeeds if nobody listens on the socket at `path`. */
const refuses = (path: string): Effect.Effect<void, unknown> =>
  Effect.callback((resume) => {
    const socket = connect({ path })
    socket.on("connect", () => {
      // Destroyed, it would reset a server that says something first, and some do not survive that.
      socket.end().resume().unref()
      resume(Effect.fail(problem("EADDRINUSE", "somebody listens there")))
    })
    socket.on("error", (cause: NodeJS.ErrnoException) => {
      if (cause.code === "ECONNREFUSED") return resume(Effect.void)
      // It has just gone, or its server has, which leaves those whom it has not accepted.
      if (cause.code === "ENOENT" || cause.code === "ECONNRESET") return resume(Effect.fail(new Again()))
      // Too many wait to be accepted.
      resume(Effect.fail(cause.code === "EAGAIN" ? problem("EADDRINUSE", cause.message) : cause))
    })
    return Effect.sync(() => socket.destroy())
  })

// --- Putting it in place ---

/** In one step, so that an interruption comes before or after, and no other process has to wait for long. */
const place = (
  path: string,
  seen: Identity,
  lock: Lock,
  mode: number | undefined,
  bind: Bind
): SocketFile | undefined => {
  // To be found again from another working directory.
  const file = resolve(path)
  lock.take()
  const check = () => {
    if (!lock.isHeld() || !isSame(identify(path), seen)) throw new Again()
  }
  try {
    check()
    // Nobody else can enter it, so nobody connects before the socket has its mode.
    const directory = Fs.mkdtempSync(`${dirname(path)}/.`)
    try {
      const boundAt = `${directory}/s`
      if (!bind(boundAt)) return undefined
      if (mode !== undefined) Fs.chmodSync(boundAt, mode)
      const own = identify(boundAt)
      // Others do without a lock, or were faster than this process after it had been taken for dead.
      check()
      move(boundAt, path, seen !== undefined)
      const remove = () => {
        if (isSame(identify(file), own)) Fs.unlinkSync(file)
      }
      return { remove: () => quietly(remove) }
    } finally {
      quietly(() => Fs.rmSync(directory, { recursive: true }))
    }
  } finally {
    quietly(() => lock.release())
  }
}

const move = (from: string, to: string, replace: boolean): void => {
  if (replace) return Fs.renameSync(from, to)
  try {
    // A link never replaces what somebody who knows no lock has put there since.
    Fs.linkSync(from, to)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "EEXIST") throw new Again()
    // Some file systems have no links. If it was for something else, this fails for that, too.
    Fs.renameSync(from, to)
  }
}

/** A file that cannot be removed is in nobody's way: the next to listen there replaces it. */
const quietly = (remove: () => void): void => {
  try {
    remove()
  } catch {
    // See above.
  }
}

/**
 * Held while a file is put in place, since to look again and to replace what was there are two steps. It is a file:
 * processes in different containers may share a directory, and nothing else.
 */
class Lock {
  private readonly file: string
  private own: Identity
  private other: Identity
  private met = 0

  constructor(path: string) {
    this.file = join(dirname(path), `.${basename(path)}.lock`)
  }

  take(): void {
    try {
      const descriptor = Fs.openSync(this.file, "wx", 0o600)
      this.own = Fs.fstatSync(descriptor, { bigint: true })
      Fs.closeSync(descriptor)
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "EEXIST") throw cause
      this.meet()
      throw new Again()
    }
  }

  /**
   * It is somebody else's. How long it has been that is counted and not read off the file: when a machine starts, and much
   * else with it, its clock jumps.
   */
  private meet(): void {
    const other = identify(this.file)
    this.met = isSame(other, this.other) ? this.met + 1 : 1
    this.other = other
    if (this.met > patience) Fs.rmSync(this.file, { force: true })
  }

  /** False if its owner was taken for dead. */
  isHeld(): boolean {
    return isSame(identify(this.file), this.own)
  }

  release(): void {
    if (this.isHeld()) Fs.unlinkSync(this.file)
  }
}

// --- What may be asked for ---

/** Bytes in the address of a Unix socket (`sun_path`, with a zero at the end). Node 22 cuts a longer one off in silence. */
const limit = process.platform === "linux" ? 108 : 104

/** A name that Linux keeps apart from all files; it ends with its last socket. */
export const isAbstract = (path: string): boolean => path.startsWith("\0")

/** What is wrong with `path` itself. */
export const misnamed = (path: string): Error | undefined => {
  if (isAbstract(path)) {
    if (process.platform !== "linux") return problem("EABSTRACT", "only Linux has abstract sockets")
    // Its bytes are counted, so there is no zero at the end.
    return Buffer.byteLength(path) > limit ? problem("ENAMETOOLONG", `more than ${limit} bytes`) : undefined
  }
  const longest = Math.max(Buffer.byteLength(path), Buffer.byteLength(dirname(path)) + "/.XXXXXX/s".length)
  if (longest < limit) return undefined
  return problem("ENAMETOOLONG", `more than ${limit - 1} bytes, there or where it is made: ${dirname(path)}/.XXXXXX/s`)
}

/** The mode of a file, as users give it. */
export const decodeMode = (mode: number | undefined): Result.Result<number | undefined, OptionError> => {
  if (mode === undefined || (Number.isInteger(mode) && mode >= 0 && mode <= 0o777)) return Result.succeed(mode)
  // Whoever forgets the 0o sees what became of it.
  const octal = Number.isInteger(mode) && mode > 0 ? `0o${mode.toString(8)} is ` : ""
  return Result.fail(new OptionError({ option: "mode", value: mode, problem: `${octal}not from 0 to 0o777` }))
}
