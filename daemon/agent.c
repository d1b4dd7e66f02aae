/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/agent.h"
#include "daemon/destination/destination.h"
#include "daemon/qemu-tls.h"
#include "daemon/server.h"
#include "daemon/source/source.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#define REMEMBERED_JOBS 100
#define MAX_LIVE_JOBS 64
#define TICK_MS 200

struct Agent
{
  Config *config;
  char *host, *qemu_tls_dir;
  Server *server;
  GPtrArray *jobs; /* Job, oldest first */
  guint tick, forget;
  void (*stopped) (gpointer data);
  gpointer stopped_data;

  GMutex lock;
  Credentials *client, *server_credentials;
};

const Config *
agent_get_config (const Agent *agent)
{
  return agent->config;
}

const char *
agent_get_host (const Agent *agent)
{
  return agent->host;
}

const char *
agent_get_qemu_tls_dir (const Agent *agent)
{
  return agent->qemu_tls_dir;
}

GPtrArray *
agent_get_jobs (Agent *agent)
{
  return agent->jobs;
}

Credentials *
agent_get_credentials (Agent *agent, CredentialsEndpoint endpoint)
{
  Credentials *credentials;

  g_mutex_lock (&agent->lock);
  credentials = credentials_ref (endpoint == CREDENTIALS_CLIENT ? agent->client
                                                                : agent->server_credentials);
  g_mutex_unlock (&agent->lock);
  return credentials;
}

gboolean
agent_reload (Agent *agent, GError **error)
{
  g_autoptr (Credentials) client
      = credentials_load (agent->config->tls_dir, CREDENTIALS_CLIENT, error);
  g_autoptr (Credentials) server
      = client ? credentials_load (agent->config->tls_dir, CREDENTIALS_SERVER, error) : NULL;

  if (!server)
    return FALSE;
  g_mutex_lock (&agent->lock);
  credentials_unref (agent->client);
  credentials_unref (agent->server_credentials);
  agent->client = g_steal_pointer (&client);
  agent->server_credentials = g_steal_pointer (&server);
  g_mutex_unlock (&agent->lock);
  return TRUE;
}

static gboolean
agent_job_is_live (const Job *job)
{
  return !job_state_is_final (job->state);
}

/* What is left of such a job is a journal that waits to be read: by the other side, or by a
 * restarted agent. */
static gboolean
agent_job_is_at_rest (const Job *job)
{
  return !agent_job_is_live (job) || job->state == JOB_NEEDS_OPERATOR || job->state == JOB_OWNER;
}

gboolean
agent_add_job (Agent *agent, Job *job, GError **error)
{
  guint live = 0;

  for (guint i = 0; i < agent->jobs->len; i++)
    {
      const Job *other = g_ptr_array_index (agent->jobs, i);

      /* An ended one, too: a peer chooses this name, and it must go on to mean one job. */
      if (g_str_equal (other->uuid, job->uuid))
        {
          g_set_error (error, JOB_ERROR, JOB_ERROR_BUSY, "there is a job %s already", job->uuid);
          return FALSE;
        }
      if (!agent_job_is_live (other))
        continue;
      live++;
      if (other->state != JOB_OWNER && g_str_equal (other->qmp_path, job->qmp_path))
        {
          g_set_error (error, JOB_ERROR, JOB_ERROR_BUSY,
                       "%s is being migrated already: job %s has %s (%s)", other->guest,
                       other->uuid, other->qmp_path, job_state_to_string (other->state));
          return FALSE;
        }
    }
  if (live >= MAX_LIVE_JOBS)
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_BUSY, "%u jobs are under way on %s: no more at once",
                   live, agent->host);
      return FALSE;
    }
  g_ptr_array_add (agent->jobs, job);
  return TRUE;
}

Job *
agent_find_job (Agent *agent, const char *uuid, GError **error)
{
  Job *found = NULL;

  for (guint i = 0; i < agent->jobs->len; i++)
    {
      Job *job = g_ptr_array_index (agent->jobs, i);
      if (*uuid == '\0' || !g_str_has_prefix (job->uuid, uuid))
        continue;
      if (found)
        {
          g_set_error (error, JOB_ERROR, JOB_ERROR_USAGE, "more than one job begins with %s", uuid);
          return NULL;
        }
      found = job;
    }
  if (!found)
    g_set_error (error, JOB_ERROR, JOB_ERROR_NOT_FOUND, "there is no job %s", uuid);
  return found;
}

void
agent_emit (Agent *agent, Job *job, const char *event, JsonObject *data)
{
  if (agent->server)
    server_emit (agent->server, job, event, data);
  else
    json_object_unref (data);
}

static void
agent_check_stopped (Agent *agent)
{
  if (!agent->stopped)
    return;
  for (guint i = 0; i < agent->jobs->len; i++)
    if (!agent_job_is_at_rest (g_ptr_array_index (agent->jobs, i)))
      return;
  agent->stopped (agent->stopped_data);
}

/* When the main loop is idle: nothing that was posted for one of these jobs is on its way then. */
static gboolean
agent_forget_old_jobs (gpointer data)
{
  Agent *agent = data;
  guint ended = 0;

  agent->forget = 0;
  for (guint i = agent->jobs->len; i-- > 0;)
    {
      const Job *job = g_ptr_array_index (agent->jobs, i);
      /* One that runs has yet to tell its peer how it ended. */
      if (!agent_job_is_live (job) && !job->running && ++ended > REMEMBERED_JOBS)
        g_ptr_array_remove_index (agent->jobs, i);
    }
  return G_SOURCE_REMOVE;
}

void
agent_job_ended (Agent *agent, Job *job)
{
  g_message ("job %.8s (%s): ended: %s%s%s", job->uuid, job->guest,
             job_state_to_string (job->state), job->error ? ": " : "",
             job->error ? job->error->message : "");
  agent_emit (agent, job, "JOB_ENDED", job_describe (job));
  if (agent->forget == 0)
    agent->forget = g_idle_add (agent_forget_old_jobs, agent);
  agent_check_stopped (agent);
}

void
agent_connection_closed (Agent *agent, Connection *connection)
{
  for (guint i = 0; i < agent->jobs->len; i++)
    {
      Job *job = g_ptr_array_index (agent->jobs, i);
      if (job->role == JOB_DESTINATION)
        destination_unbind (job, connection);
    }
}

static gboolean
agent_on_tick (gpointer data)
{
  Agent *agent = data;

  for (guint i = 0; i < agent->jobs->len; i++)
    {
      Job *job = g_ptr_array_index (agent->jobs, i);
      if (!agent_job_is_live (job))
        continue;
      if (job->klass->tick)
        job->klass->tick (job);
      if (job_take_changed (job))
        agent_emit (agent, job, "JOB_PROGRESS", job_describe (job));
    }
  return G_SOURCE_CONTINUE;
}

void
agent_stop (Agent *agent, void (*done) (gpointer data), gpointer data)
{
  g_autoptr (GError) reason
      = g_error_new (JOB_ERROR, JOB_ERROR_FAILED, "the agent of %s was stopped", agent->host);

  agent->stopped = done;
  agent->stopped_data = data;
  for (guint i = 0; i < agent->jobs->len; i++)
    {
      Job *job = g_ptr_array_index (agent->jobs, i);
      if (agent_job_is_live (job))
        job_event (job, JOB_EVENT_CANCEL, reason, NULL);
    }
  agent_check_stopped (agent);
}

static gboolean
agent_make_dirs (const Config *config, GError **error)
{
  g_autofree char *jobs = g_build_filename (config->state_dir, "jobs", NULL);

  if (g_mkdir_with_parents (jobs, 0700) < 0 || g_mkdir_with_parents (config->runtime_dir, 0755) < 0)
    {
      g_set_error (error, G_IO_ERROR, g_io_error_from_errno (errno), "cannot make %s or %s: %s",
                   jobs, config->runtime_dir, g_strerror (errno));
      return FALSE;
    }
  return TRUE;
}

/* The first record tells which side of the job this host was. */
static gboolean
agent_recover_job (Agent *agent, const char *uuid, GError **error)
{
  g_autoptr (GPtrArray) records = NULL;
  g_autoptr (Journal) journal = journal_open (agent->config->state_dir, uuid, &records, error);
  const char *role;

  if (!journal)
    return FALSE;
  if (records->len == 0)
    return journal_remove (journal, error);
  if (!json_get_string (records->pdata[0], "role", &role))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "the journal of job %s has no role", uuid);
      return FALSE;
    }
  if (g_str_equal (role, "source"))
    return source_recover (agent, uuid, g_steal_pointer (&journal), records, error);
  return destination_recover (agent, uuid, g_steal_pointer (&journal), records, error);
}

/* A journal that can't be read is left where it is, and said: it may tell who owns a guest. */
static gboolean
agent_recover (Agent *agent, GError **error)
{
  g_auto (GStrv) jobs = journal_list (agent->config->state_dir, error);

  if (!jobs)
    return FALSE;
  for (guint i = 0; jobs[i]; i++)
    {
      g_autoptr (GError) bad = NULL;
      if (!agent_recover_job (agent, jobs[i], &bad))
        g_warning ("job %s can't be picked up: %s", jobs[i], bad->message);
    }
  return TRUE;
}

Agent *
agent_new (const char *config_path, GError **error)
{
  g_autoptr (Agent) agent = g_new0 (Agent, 1);

  g_mutex_init (&agent->lock);
  agent->host = g_strdup (g_get_host_name ());
  agent->jobs = g_ptr_array_new_with_free_func ((GDestroyNotify)job_free);
  agent->config = config_load (config_path, error);
  if (!agent->config || !agent_reload (agent, error) || !agent_make_dirs (agent->config, error))
    return NULL;
  agent->qemu_tls_dir
      = qemu_tls_make_dir (agent->config->tls_dir, agent->config->runtime_dir, error);
  if (!agent->qemu_tls_dir)
    return NULL;
  agent->server = server_new (agent, error);
  if (!agent->server || !agent_recover (agent, error))
    return NULL;
  agent->tick = g_timeout_add (TICK_MS, agent_on_tick, agent);
  return g_steal_pointer (&agent);
}

void
agent_free (Agent *agent)
{
  if (!agent)
    return;
  g_clear_handle_id (&agent->tick, g_source_remove);
  g_clear_handle_id (&agent->forget, g_source_remove);
  g_clear_pointer (&agent->server, server_free);
  /* Jobs whose action still runs (needs-operator) can't be freed; the process ends anyway. */
  for (guint i = agent->jobs->len; i-- > 0;)
    if (((Job *)g_ptr_array_index (agent->jobs, i))->running)
      g_ptr_array_steal_index (agent->jobs, i);
  g_ptr_array_unref (agent->jobs);
  credentials_unref (agent->client);
  credentials_unref (agent->server_credentials);
  config_free (agent->config);
  g_mutex_clear (&agent->lock);
  g_free (agent->host);
  g_free (agent->qemu_tls_dir);
  g_free (agent);
}
