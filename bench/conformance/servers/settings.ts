/**
 * What a case asks of a server, and what every server prints: the contract between the cases and the subjects. All of it
 * goes through the environment, so that each subject is an ordinary program.
 */
export type Mode = "http" | "https" | "h2c" | "h2"

/** What becomes of the clean-up: two resources, of which the cache depends on the database. */
export type Release = "ok" | "hang" | "stall" | "fail" | "flood"

export interface Settings {
  readonly mode: Mode
  /** The limit of whatever the subject has a limit for, in milliseconds. */
  readonly grace: number
  readonly release: Release
  /** How long everything is still served once the signal has come, in milliseconds; 0 is none. */
  readonly lameDuck: number
  /** A second listener, of a part of the application that the first depends on. */
  readonly second: boolean
  /** Leave a timer running that nobody clears. */
  readonly leak: boolean
  /** Whether the first signal comes once more, as far apart as it does through a slow wrapper. */
  readonly echo: boolean
  /** How long effect-kms gives a connection to speak, or to go on, in milliseconds; 0 is what it does by default. */
  readonly patience: number
  readonly port: number
}

/** Its arguments may be given, or the environment's. */
export const toEnv = (settings: Partial<Settings>): Record<string, string> => ({
  CONFORMANCE: JSON.stringify(settings)
})

export const settings: Settings = {
  mode: "http",
  grace: 20_000,
  release: "ok",
  lameDuck: 0,
  second: false,
  leak: false,
  echo: false,
  patience: 0,
  port: 0,
  ...(JSON.parse(process.env["CONFORMANCE"] ?? "{}") as Partial<Settings>)
}

/** Lines of the flood: about 4 MB, more than a pipe takes at once. */
export const floodLines = 40_000

export const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

const begun = new Map<string, number>()

/** The handler of a request has begun: the first of its path, the second, and so on. */
export const began = (path: string): void => {
  const count = (begun.get(path) ?? 0) + 1
  begun.set(path, count)
  say(`began ${path} ${count}`)
}

/** Whether the database is open. What is in flight must never see it closed. */
export const database = { open: true }

/** Closes the cache; what goes wrong in a case goes wrong here, before the database is closed. */
export const closeCache = async (): Promise<void> => {
  say("releasing")
  // A clean-up that hangs has a handle, as a connection to a database is one; in one that stalls the event loop is empty.
  if (settings.release === "hang") await new Promise(() => void setInterval(() => {}, 1000))
  if (settings.release === "stall") await new Promise(() => {})
  if (settings.release === "fail") throw new Error("the cache could not be closed")
  say("released cache")
}

export const closeDatabase = async (): Promise<void> => {
  database.open = false
  if (settings.release === "flood") {
    for (let i = 1; i <= floodLines; i++) say(`flood ${i} ${"x".repeat(90)}`)
  }
  say("released database")
}

if (settings.leak) setInterval(() => {}, 1000)

const echoMillis = 30

// Says that the signal has come, and nothing else. As it goes with the first one it changes nothing for the second.
for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
  const told = () => {
    say(`heard ${signal}`)
    if (settings.echo) setTimeout(() => process.kill(process.pid, signal), echoMillis).unref()
  }
  // Where nobody else listens, the default action has to stay.
  process.on("newListener", (event, listener) => {
    if (event !== signal || listener === told || process.listenerCount(signal) > 0) return
    process.once(signal, told)
  })
}
