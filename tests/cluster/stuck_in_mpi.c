/* Preloaded into `topomoe run`: ranks that do not come back from MPI, or go down in it.

   MPI_Test and MPI_Testall stop coming back after STUCK_AFTER calls, as Open MPI's own abort may not in a survivor; with
   STUCK_DEAF the thread takes no signals either. Rank FAULT_RANK sends itself FAULT_SIGNAL, a number, on entering the
   function FAULT_AT. */
#include <mpi.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void may_be_stuck(void) {
  static long calls = 0;
  const char* after = getenv("STUCK_AFTER");
  if (after == NULL || ++calls <= atol(after)) return;
  if (getenv("STUCK_DEAF") != NULL) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
  }
  for (;;) pause();
}

static void may_fail(const char* function) {
  const char *at = getenv("FAULT_AT"), *victim = getenv("FAULT_RANK"), *rank = getenv("OMPI_COMM_WORLD_RANK");
  if (at == NULL || victim == NULL || rank == NULL || strcmp(at, function) != 0 || strcmp(victim, rank) != 0) return;
  if (strcmp(function, "MPI_Init_thread") == 0) sleep(1); /* until the others are in there, too */
  kill(getpid(), atoi(getenv("FAULT_SIGNAL")));
}

int MPI_Test(MPI_Request* request, int* flag, MPI_Status* status) {
  may_be_stuck();
  return PMPI_Test(request, flag, status);
}

int MPI_Testall(int count, MPI_Request requests[], int* flag, MPI_Status statuses[]) {
  may_be_stuck();
  return PMPI_Testall(count, requests, flag, statuses);
}

int MPI_Init_thread(int* argc, char*** argv, int required, int* provided) {
  may_fail("MPI_Init_thread");
  return PMPI_Init_thread(argc, argv, required, provided);
}

int MPI_Comm_split(MPI_Comm comm, int color, int key, MPI_Comm* made) {
  may_fail("MPI_Comm_split");
  return PMPI_Comm_split(comm, color, key, made);
}

int MPI_Allgather(const void* from, int count, MPI_Datatype type, void* to, int received, MPI_Datatype its_type,
                  MPI_Comm comm) {
  may_fail("MPI_Allgather");
  return PMPI_Allgather(from, count, type, to, received, its_type, comm);
}

int MPI_Iallreduce(const void* from, void* to, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm,
                   MPI_Request* request) {
  may_fail("MPI_Iallreduce");
  return PMPI_Iallreduce(from, to, count, type, op, comm, request);
}
