#!/usr/bin/env bash

#PBS -N segment-slide-0a1b2c3d
#PBS -l select=1:ncpus=8:mem=32768mb:ngpus=1
#PBS -l walltime=04:00:00
#PBS -e /shared/me/logs/
#PBS -o /shared/me/logs/
#PBS -l place=excl
exec >"/shared/me/logs/segment-slide-0a1b2c3d-${PBS_JOBID%%.*}.out" 2>"/shared/me/logs/segment-slide-0a1b2c3d-${PBS_JOBID%%.*}.err"
export OMP_NUM_THREADS=1
export MKL_NUM_THREADS=1
export OPENBLAS_NUM_THREADS=1
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1
export THP_MEM_ALLOC_ENABLE=1
export MALLOC_ARENA_MAX=1
export MALLOC_MMAP_THRESHOLD_=33554432
export MALLOC_TRIM_THRESHOLD_=134217728
export PYTHONSAFEPATH=1
export DASK_DISTRIBUTED__WORKER__MEMORY__TARGET=False
export DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=False
export DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False
export DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE=0.98
export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True
export DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES='[]'
export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'
export DASK_DISTRIBUTED__NANNY__PRELOAD='[]'
export DASK_DISTRIBUTED__WORKER__PRELOAD='[]'
export DASK_DISTRIBUTED__WORKER__LIFETIME__RESTART=False
export DASK_LOGGING='{"distributed": "info"}'
export DASK_DISTRIBUTED__WORKER__LIFETIME__DURATION=13500s
export DASK_DISTRIBUTED__WORKER__LIFETIME__STAGGER=600s
module load cuda/12.4
/opt/seg/bin/python -m segment_slide.cluster.kinds.batch_worker distributed.cli.dask_worker tls://10.0.0.1:8786 --name segment-slide-0a1b2c3d-0 --nthreads 2 --memory-limit 30923764532 --death-timeout 60 --nanny --preload segment_slide.cluster.preload --dashboard-address 127.0.0.1:0 --no-dashboard --protocol tls:// --tls-ca-file /shared/me/ca_file.pem --tls-cert /shared/me/cert.pem --tls-key /shared/me/key.pem
