/**
 * A stand-in for systemd, and constant load on what it starts.
 */
import { Deferred, Effect, Exit, Fiber, type Scope } from "effect"
import { request } from "node:http"
import { type Program, start } from "./program.ts"

/**
 * Does what systemd does with the sockets of a service: it opens them, never accepts on them, and starts the command with
 * them whenever a connection waits and the last process has ended. In Perl, since a server of Node's that listens accepts.
 */
const script = String.raw`
  use strict; use warnings; use Socket;
  $| = 1;
  $^F = 63; # Descriptors up to this one stay open in the command.
  my ($names, @command) = @ARGV;
  my ($waiting, @sockets) = ("");
  for my $name (split /:/, $names) {
    socket(my $socket, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
    bind($socket, sockaddr_in(0, INADDR_LOOPBACK)) or die "bind: $!";
    listen($socket, SOMAXCONN) or die "listen: $!";
    push @sockets, $socket;
    fileno($socket) == 2 + @sockets or die "descriptor " . fileno($socket) . " is not the next one";
    vec($waiting, fileno($socket), 1) = 1;
    my ($port) = sockaddr_in(getsockname($socket));
    print "systemd: $name on port $port\n";
  }
  while (1) {
    select(my $ready = $waiting, undef, undef, undef);
    my $pid = fork() // die "fork: $!";
    if ($pid == 0) {
      @ENV{qw(LISTEN_PID LISTEN_FDS LISTEN_FDNAMES)} = ($$, scalar @sockets, $names);
      exec @command or die "exec: $!";
    }
    print "systemd: started $pid\n";
    waitpid($pid, 0);
    print "systemd: ended $pid with ", $? & 127 ? "signal " . ($? & 127) : $? >> 8, "\n";
  }
`

export interface Systemd extends Program {
  readonly portOf: (name: string) => number
  /** Completes with the process id once that many processes have been started. */
  readonly started: (count: number) => Effect.Effect<number>
  /** Completes with how it went once the process has ended: an exit code, or a signal. */
  readonly processEnded: (pid: number) => Effect.Effect<string>
}

/** Opens a socket for each name, and starts `file` with them when the first connection comes. */
export const systemd = (file: string, names: ReadonlyArray<string>): Effect.Effect<Systemd, never, Scope.Scope> =>
  Effect.gen(function* () {
    const program = yield* start("-e", { command: ["perl"], args: [script, names.join(":"), process.execPath, file] })
    const ports = new Map<string, number>()
    for (const name of names) {
      const [, port] = yield* program.printed(new RegExp(`systemd: ${name} on port (\\d+)\n`))
      ports.set(name, Number(port))
    }
    return {
      ...program,
      portOf: (name) => ports.get(name)!,
      started: (count) =>
        Effect.map(program.printed(new RegExp(`(?:systemd: started (\\d+)\n[^]*?){${count}}`)), ([, pid]) =>
          Number(pid)
        ),
      processEnded: (pid) =>
        Effect.map(program.printed(new RegExp(`systemd: ended ${pid} with (.*)\n`)), ([, how]) => how!)
    }
  })

export interface Load {
  readonly asked: () => number
  /** How many answers had this body. */
  readonly answered: (body: string) => number
  /** How many requests wait for their answer. */
  readonly inFlight: () => number
  /** What went wrong, one for each request that had no answer. */
  readonly failures: ReadonlyArray<string>
  /** Completes when so many answers have had this body. */
  readonly reached: (body: string, count: number) => Effect.Effect<void>
  /** Completes when a request has failed. */
  readonly failed: Effect.Effect<void>
  /** Asks nothing more, and completes with the last answer. */
  readonly stop: Effect.Effect<void>
}

/**
 * So many clients that ask for one of the paths after the other, each time on a new connection, with no pause. A client
 * goes at its first failure.
 */
export const load = (
  port: number,
  clients: number,
  paths: ReadonlyArray<string>
): Effect.Effect<Load, never, Scope.Scope> =>
  Effect.gen(function* () {
    const counts = new Map<string, number>()
    const failures: Array<string> = []
    const failed = Deferred.makeUnsafe<void>()
    const waiting = new Set<() => void>()
    const state = { asked: 0, settled: 0, isStopping: false }
    const answered = (body: string) => counts.get(body) ?? 0

    const client = Effect.gen(function* () {
      while (!state.isStopping) {
        const path = paths[state.asked++ % paths.length]!
        const answer = yield* Effect.exit(once(port, path))
        state.settled++
        if (Exit.isFailure(answer)) {
          failures.push(String(answer.cause))
          Deferred.doneUnsafe(failed, Exit.void)
          return
        }
        counts.set(answer.value, answered(answer.value) + 1)
        for (const look of Array.from(waiting)) look()
      }
    })
    const fibers = yield* Effect.forEach(Array.from({ length: clients }), () => Effect.forkScoped(client))

    return {
      asked: () => state.asked,
      answered,
      inFlight: () => state.asked - state.settled,
      failures,
      reached: (body, count) =>
        Effect.callback<void>((resume) => {
          const look = () => {
            if (answered(body) < count) return
            waiting.delete(look)
            resume(Effect.void)
          }
          waiting.add(look)
          look()
          return Effect.sync(() => void waiting.delete(look))
        }),
      failed: Deferred.await(failed),
      stop: Effect.andThen(
        Effect.sync(() => {
          state.isStopping = true
        }),
        Effect.asVoid(Fiber.awaitAll(fibers))
      )
    }
  })

/** The body of an answer of 200. Fails with the code of what went wrong otherwise. */
const once = (port: number, path: string): Effect.Effect<string, string> =>
  Effect.callback<string, string>((resume) => {
    const fail = (error: NodeJS.ErrnoException) => resume(Effect.fail(error.code ?? error.message))
    const sent = request({ host: "127.0.0.1", port, path, agent: false })
    sent.on("error", fail)
    sent.on("response", (response) => {
      let body = ""
      response.setEncoding("utf8")
      response.on("error", fail)
      response.on("data", (chunk: string) => {
        body += chunk
      })
      response.on("end", () =>
        resume(response.statusCode === 200 ? Effect.succeed(body) : Effect.fail(`status ${response.statusCode}`))
      )
    })
    sent.end()
    return Effect.sync(() => void sent.destroy())
  })
