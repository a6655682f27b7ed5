/** What is known of a statement that failed: the caller is told "not at present" only where nothing can have happened. And what a lost connection ends: itself. */
import { once } from 'node:events'
import type { EventEmitter } from 'node:events'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { deadlineClient, openDatabase } from '../../src/store/postgres.ts'
import { cannotConnect, changedNothing, isPostgresAway } from '../../src/store/postgres-failures.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'

describe('a failure certainly changed nothing', () => {
  let database: TestDatabase
  beforeAll(async () => { database = await createDatabase() })
  afterAll(() => database.drop())

  const failureOf = async (url: string, statement = 'SELECT 1'): Promise<unknown> => {
    const db = openDatabase({ url, name: 'test', max: 1 })
    const failure = await db.$executeRawUnsafe(statement).then(() => null, (error: unknown) => error)
    await db.$disconnect()
    return failure
  }

  it('where the host takes the connection and says nothing', async () => {
    const silent = createServer(() => {}).listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const failure = await failureOf(`postgresql://u:p@127.0.0.1:${(silent.address() as AddressInfo).port}/x`)
    expect(cannotConnect(failure)).toBe(true)
    expect(changedNothing(failure)).toBe(true)
    silent.close()
  })

  it('where the connection is refused: no such database, or no such user', async () => {
    const nowhere = new URL(database.url)
    nowhere.pathname = '/nowhere'
    expect(changedNothing(await failureOf(nowhere.href))).toBe(true)
    const nobody = new URL(database.url)
    nobody.username = 'nobody'
    expect(changedNothing(await failureOf(nobody.href))).toBe(true)
  })

  it('where Postgres takes no writes', async () => {
    await database.sql.query(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$`)
    expect(changedNothing(await failureOf(database.url, 'INSERT INTO commits (sessions) VALUES (0)'))).toBe(true)
  })
})

describe('a connection that Postgres ends', () => {
  let database: TestDatabase
  beforeAll(async () => { database = await createDatabase() })
  afterAll(() => database.drop())

  it.each([
    { who: 'nobody may be listening to it at that moment', leave: () => undefined },
    { who: 'whoever had it took all listeners off it', leave: (client: Pick<EventEmitter, 'removeAllListeners'>) => void client.removeAllListeners() },
  ])('ends no process, though $who', async ({ leave }) => {
    const unheard: unknown[] = []
    const hear = (error: unknown) => unheard.push(error)
    process.on('uncaughtException', hear)
    const client = new (deadlineClient(5_000))({ connectionString: database.url })
    await client.connect()
    const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
    leave(client)
    // Not events.once, which would listen to errors as well.
    const ended = new Promise((resolve) => client.once('end', resolve))
    await database.sql.query('SELECT pg_terminate_backend($1)', [rows[0]?.pid])
    await ended
    process.off('uncaughtException', hear)
    expect(unheard).toEqual([])
  })

  it('is told as "not at present", also where the peer resets it', async () => {
    const resetting = createServer((socket) => {
      socket.on('error', () => {})
      socket.once('data', () => socket.resetAndDestroy())
    }).listen(0, '127.0.0.1')
    await once(resetting, 'listening')
    const db = openDatabase({ url: `postgresql://u:p@127.0.0.1:${(resetting.address() as AddressInfo).port}/x`, name: 'test', max: 1 })
    const failure = await db.$executeRawUnsafe('SELECT 1').then(() => null, (error: unknown) => error)
    expect(failure).toBeInstanceOf(Error)
    expect(isPostgresAway(failure as Error)).toBe(true)
    await db.$disconnect()
    resetting.close()
  })
})

describe('a client that has ended', () => {
  let database: TestDatabase
  beforeAll(async () => { database = await createDatabase() })
  afterAll(() => database.drop())
  afterEach(() => { vi.useRealTimers() })

  it('leaves no timer behind, though whoever had it took all listeners off it', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval'] })
    const client = new (deadlineClient(5_000))({ connectionString: database.url })
    await client.connect()
    await client.query('LISTEN something')
    expect(vi.getTimerCount()).toBe(1)
    client.removeAllListeners()
    // Not the promise of end(), which comes before the client's own end.
    const ended = new Promise((resolve) => client.once('end', resolve))
    void client.end()
    await ended
    expect(vi.getTimerCount()).toBe(0)
  })

  it('waits no longer than for any answer for the goodbye of a peer that has vanished', async () => {
    const { hostname, port } = new URL(database.url)
    const sockets: Socket[] = []
    // Postgres closes its side, and nobody hands that on.
    const peer = createServer({ allowHalfOpen: true }, (here) => {
      const there = connect(Number(port), hostname)
      sockets.push(here, there)
      here.pipe(there, { end: false })
      there.pipe(here, { end: false })
      for (const socket of [here, there]) socket.on('error', () => {})
    }).listen(0, '127.0.0.1')
    await once(peer, 'listening')
    const url = new URL(database.url)
    url.port = String((peer.address() as AddressInfo).port)
    const client = new (deadlineClient(1_000))({ connectionString: url.href })
    await client.connect()
    await client.query('SELECT 1')
    await client.end()
    peer.close()
    for (const socket of sockets) socket.destroy()
  })
})
